"""Grad-CAM: refused arguments, an unchanged model, and independence of the caller's settings."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from torch import Tensor, nn

from cifarpipe.config.schema import Params
from cifarpipe.explanations.gradcam import class_activation_maps
from tests.support.gradcam_cases import NETWORKS, Case, K, make_case


@pytest.fixture(params=["conv", "tokens", *NETWORKS])
def case(request: pytest.FixtureRequest, demo_params: Params) -> Case:
    return make_case(request.param, demo_params)


@pytest.fixture
def conv(demo_params: Params) -> Case:
    return make_case("conv", demo_params)


def hooks(model: nn.Module) -> int:
    return sum(
        len(found)
        for module in model.modules()
        for found in (
            module._forward_hooks, module._forward_pre_hooks,
            module._backward_hooks, module._backward_pre_hooks,
        )
    )  # fmt: skip


# Refused arguments.


@pytest.mark.parametrize("label", [K, 1000, -1, -K, -K - 1])
@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.usefixtures("no_finaliser")
def test_class_out_of_range_is_refused(conv: Case, label: int, place: int) -> None:
    conv.classes[place] = label
    conv.model.train()
    with pytest.raises(ValueError, match=r"a class (out of range|below 0)"):
        conv.maps()
    assert hooks(conv.model) == 0
    assert conv.model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_network_not_in_fp32_is_refused(conv: Case, dtype: torch.dtype) -> None:
    conv.model.head.to(dtype)
    with pytest.raises(ValueError, match=r"fp32: call model.float\(\) first"):
        conv.maps()
    conv.model.float()
    assert np.isfinite(conv.maps()).all()


# The model is unchanged.


def test_mode_of_every_module_is_restored(case: Case) -> None:
    """The modes are mixed: `model.train()` afterwards would change frozen modules."""
    modules = list(case.model.modules())
    for number, module in enumerate(modules):
        module.training = number % 3 == 0
    modes = [module.training for module in modules]
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    maps = case.maps()
    assert [module.training for module in modules] == modes
    after = case.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    case.model.eval()
    np.testing.assert_array_equal(maps, case.maps())  # computed in evaluation mode in any case


def test_gradients_are_restored(case: Case) -> None:
    parameters = list(case.model.parameters())
    for parameter in parameters[::2]:
        parameter.grad = torch.randn_like(parameter)
    kept = [parameter.grad for parameter in parameters]
    values = [grad if grad is None else grad.clone() for grad in kept]
    case.maps()
    for parameter, grad, value in zip(parameters, kept, values, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)
        assert parameter.requires_grad
    assert case.batch.grad is None
    assert not case.batch.requires_grad


@pytest.fixture
def no_finaliser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove grad-cam's `__del__`, which the interpreter calls at any time or never."""
    monkeypatch.delattr(BaseCAM, "__del__")


@pytest.mark.usefixtures("no_finaliser")
def test_hooks_and_activations_are_released(case: Case) -> None:
    outputs: list[weakref.ref[Tensor]] = []

    def spy(output: Tensor) -> Tensor:
        outputs.append(weakref.ref(output))
        return case.to_map(output)

    class_activation_maps(case.model, case.layer, spy, case.batch, case.classes)
    assert hooks(case.model) == 0
    assert len(outputs) == 2  # the output and its gradient
    with torch.no_grad():
        case.model(case.batch)
    assert len(outputs) == 2
    assert all(reference() is None for reference in outputs)


class Failing(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.usefixtures("no_finaliser")
def test_model_is_restored_after_an_exception(case: Case) -> None:
    class_activation_maps(case.model, case.layer, case.to_map, case.batch, case.classes)
    case.model.head = Failing()
    case.model.train()
    first = next(case.model.parameters())
    first.grad = kept = torch.ones_like(first)
    with pytest.raises(ZeroDivisionError):
        case.maps()
    assert hooks(case.model) == 0
    assert all(module.training for module in case.model.modules())
    assert first.grad is kept


@pytest.mark.usefixtures("no_finaliser")
def test_hooks_are_removed_after_a_failed_reshape(conv: Case) -> None:
    with pytest.raises(ZeroDivisionError):
        class_activation_maps(conv.model, conv.layer, lambda _: 1 / 0, conv.batch, conv.classes)  # type: ignore[arg-type,return-value]
    assert hooks(conv.model) == 0


# Settings of the caller.


def test_frozen_weights_give_the_same_maps(case: Case) -> None:
    expected = case.maps()
    case.model.requires_grad_(False)
    # Without gradients of weights, PyTorch may use another order of operations.
    np.testing.assert_allclose(case.maps(), expected, rtol=1e-4, atol=1e-7)
    assert not any(parameter.requires_grad for parameter in case.model.parameters())


@pytest.mark.parametrize(
    "caller",
    [
        nullcontext,
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_context_of_caller_has_no_effect(
    case: Case, caller: Callable[[], AbstractContextManager[object]]
) -> None:
    expected = case.maps()
    with caller():
        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        batch = case.batch + 0.0  # created in inference mode, it can't record gradients
        maps = class_activation_maps(case.model, case.layer, case.to_map, batch, case.classes)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == state
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, expected)
