"""Precision: the choice of bf16 or fp32, and the layers adapted to it."""

import copy

import pytest
import torch
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from cifarpipe.models.vit import DotProductAttention
from cifarpipe.networks import precision as module
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.networks.precision import adapt_layers, autocast, pick_precision
from tests.support.architectures import MODEL_OF_ARCHITECTURE

CPU, GPU = torch.device("cpu"), torch.device("cuda")
EVERY_ARCHITECTURE = pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())


def build(params: Params, name: str) -> nn.Module:
    torch.manual_seed(0)
    architecture = params.models[name].architecture
    return build_model(architecture, num_classes=10, image_size=32).eval()


def kinds(model: nn.Module) -> list[type]:
    return [type(layer) for layer in model.modules()]


def explicit(model: nn.Module) -> list[bool]:
    """Return whether each layer computes attention weights as a tensor of their own."""
    return [getattr(layer, "explicit", False) for layer in model.modules()]


@EVERY_ARCHITECTURE
def test_adapted_network_keeps_its_parameters(name: str, demo_params: Params) -> None:
    model = build(demo_params, name)
    before = dict(model.named_parameters()), list(model.state_dict())
    adapt_layers(model, CPU, "bf16", compiled=False)
    after = dict(model.named_parameters())
    assert list(model.state_dict()) == before[1]
    assert list(after) == list(before[0])
    assert all(after[key] is parameter for key, parameter in before[0].items())
    assert not any(layer.training for layer in model.modules())


@EVERY_ARCHITECTURE
def test_adapted_network_computes_the_same_in_fp32(name: str, demo_params: Params) -> None:
    model = build(demo_params, name)
    for parameter in model.parameters():  # large enough that attention is not uniform
        nn.init.normal_(parameter, std=0.1)
    adapted = copy.deepcopy(model)
    adapt_layers(adapted, CPU, "bf16", compiled=False)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(adapted(images), model(images), rtol=1e-4, atol=1e-4)


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_network_on_gpu_is_not_adapted(name: str, precision: str, demo_params: Params) -> None:
    model = build(demo_params, name)
    before = kinds(model), explicit(model)
    adapt_layers(model, GPU, precision, compiled=True)
    assert (kinds(model), explicit(model)) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [True, False])
def test_depthwise_convolutions_are_replaced_on_cpu(
    precision: str, compiled: bool, demo_params: Params
) -> None:
    model = build(demo_params, "convmixer")
    adapt_layers(model, CPU, precision, compiled=compiled)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert all((type(layer) is DepthwiseConv2d) == (layer.groups > 1) for layer in layers)
    replaced = [layer for layer in layers if isinstance(layer, DepthwiseConv2d)]
    assert len(replaced) == demo_params.models["convmixer"].depth
    assert all(layer.compiled == compiled for layer in replaced)


def test_bf16_on_cpu_uses_explicit_attention(demo_params: Params) -> None:
    model = build(demo_params, "vit")
    adapt_layers(model, CPU, "bf16", compiled=False)
    attentions = [layer for layer in model.modules() if isinstance(layer, DotProductAttention)]
    assert len(attentions) == demo_params.models["vit"].depth
    assert all(attention.explicit for attention in attentions)
    model = build(demo_params, "vit")
    adapt_layers(model, CPU, "fp32", compiled=False)
    assert not any(getattr(layer, "explicit", False) for layer in model.modules())


@pytest.mark.parametrize(
    ("wanted", "native", "expected"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("fp32", True, "fp32"),
        ("bf16", False, "bf16"),
    ],
)
def test_precision_on_cpu(
    wanted: str, native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "computes_bf16", lambda _device: native)
    assert pick_precision(wanted, CPU) == expected


def test_bf16_is_refused_on_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "computes_bf16", lambda _device: False)
    monkeypatch.setattr(module, "device_name", lambda _device: "Old GPU")
    with pytest.raises(UserError, match=r"precision is bf16, which Old GPU does not support"):
        pick_precision("bf16", GPU)
    assert pick_precision("auto", GPU) == "fp32"


def test_fp32_disables_an_outer_autocast() -> None:
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
        with autocast(CPU, "fp32"):
            assert layer(x).dtype == torch.float32
