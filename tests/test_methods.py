"""Explanation methods: those that params.yaml may name exist, and fit the networks they are for."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifarpipe.config.architectures import WITH_ATTENTION
from cifarpipe.config.schema import AttentionMethod, GeneralMethod, Params
from cifarpipe.explanations import methods
from cifarpipe.explanations.libragrad import balanced_gradients, has_attention_blocks
from cifarpipe.explanations.methods import (
    ATTENTION_METHODS,
    CLASS_AGNOSTIC,
    GENERAL_METHODS,
    map_maker,
    methods_for,
)
from cifarpipe.models.build import Classifier, build_model
from tests.support.architectures import MODEL_OF_ARCHITECTURE

EVERY_ARCHITECTURE = pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())


def build(name: str, params: Params) -> Classifier:
    torch.manual_seed(0)
    model = build_model(params.models[name].architecture, num_classes=5, image_size=32)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.02, 0.2)
    return model.eval()


def test_every_method_of_the_schema_exists() -> None:
    assert set(GENERAL_METHODS) == set(get_args(GeneralMethod))
    assert set(ATTENTION_METHODS) == set(get_args(AttentionMethod))
    assert set(CLASS_AGNOSTIC) <= {*GENERAL_METHODS, *ATTENTION_METHODS}


@EVERY_ARCHITECTURE
def test_schema_allows_attention_where_the_network_has_it(name: str, demo_params: Params) -> None:
    model = build(name, demo_params)
    assert has_attention_blocks(model) == (demo_params.models[name].arch in WITH_ATTENTION)
    expected = (
        [*GENERAL_METHODS, *ATTENTION_METHODS] if has_attention_blocks(model) else GENERAL_METHODS
    )
    assert list(methods_for(model)) == list(expected)


@EVERY_ARCHITECTURE
def test_class_agnostic_methods_give_equal_maps(name: str, demo_params: Params) -> None:
    model, image = build(name, demo_params), torch.randn(1, 3, 32, 32)
    for method in methods_for(model):
        first, second = (map_maker(model, method)(image, torch.tensor([k])) for k in (0, 1))
        assert (first.ndim, len(first)) == (3, 1)
        assert (first == second).all() == (method in CLASS_AGNOSTIC), method


def test_other_methods_are_refused(demo_params: Params) -> None:
    convmixer = build("convmixer", demo_params)
    for method in ("attention_rollout", "camgrad"):
        with pytest.raises(ValueError, match=f"'{method}' can't explain this network; allowed: "):
            map_maker(convmixer, method)


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("count", [1, 3])
def test_one_class_per_image_is_required(name: str, count: int, demo_params: Params) -> None:
    model, images = build(name, demo_params), torch.randn(2, 3, 32, 32)
    for method in methods_for(model):
        with pytest.raises(ValueError, match=rf"^{count} classes for 2 images$"):
            map_maker(model, method)(images, torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.zeros((2, 8), np.float32), r"returned float32 \[2, 8\] for 2 images"),
        (np.zeros((1, 8, 8), np.float32), r"returned float32 \[1, 8, 8\] for 2 images"),
        (np.zeros((2, 8, 8)), r"returned float64 \[2, 8, 8\] for 2 images; allowed: float32"),
        (np.full((2, 8, 8), np.nan, np.float32), "not finite"),
        (np.full((2, 8, 8), np.inf, np.float32), "not finite"),
    ],
)
def test_anything_but_finite_maps_is_refused(
    maps: np.ndarray, message: str, demo_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"wrong": lambda _model, _batch, _classes: maps}
    monkeypatch.setattr(methods, "GENERAL_METHODS", wrong)
    make = map_maker(build("convmixer", demo_params), "wrong")
    with pytest.raises(ValueError, match=message):
        make(torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("arch", WITH_ATTENTION)
def test_balanced_gradients_add_up_to_the_logit(arch: str, demo_params: Params) -> None:
    """They do not if a norm, GELU or softmax is computed by a function instead of a layer.

    The outputs differ if a norm is not over the last axis.
    """
    model = build(MODEL_OF_ARCHITECTURE[arch], demo_params)
    image, tokens = torch.randn(1, 3, 32, 32), list[Tensor]()
    expected = model(image)

    def cut(_block: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        tokens.append(inputs[0].detach().requires_grad_())
        return tokens[0]

    model.blocks[0].register_forward_pre_hook(cut)
    biases = [value for key, value in model.named_parameters() if key.endswith("bias")]
    with balanced_gradients(model):
        logits = model(image)
        logit = logits[0, 2]
        gradients = torch.autograd.grad(logit, [*tokens, *biases], allow_unused=True)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    pairs = zip([*tokens, *biases], gradients, strict=True)
    total = sum(
        float((x * gradient).sum().detach()) for x, gradient in pairs if gradient is not None
    )
    assert total == pytest.approx(float(logit.detach()), rel=1e-4, abs=1e-4)
