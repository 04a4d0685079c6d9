"""Depthwise convolutions compared with PyTorch's, outputs and gradients."""

import pytest
import torch
from torch import Tensor, nn

from cifarpipe.networks.depthwise import DepthwiseConv2d, plain_gradients, shifted_gradients
from cifarpipe.networks.precision import autocast

CPU = torch.device("cpu")
KERNELS = pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (3, 7), (1, 1)])


def convolution(kernel: tuple[int, int], *, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 6, kernel, groups=6, padding="same", bias=bias)


def images(batch: int = 3) -> Tensor:
    x = torch.randn(batch, 6, 9, 11, generator=torch.Generator().manual_seed(1))
    return x.to(memory_format=torch.channels_last)


def gradients(layer: nn.Conv2d, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the gradients of the input and of the parameters, the layer's output before them."""
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(grad)
    found = [out.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]
    layer.zero_grad()
    return found


@KERNELS
@pytest.mark.parametrize("bias", [True, False])
def test_layer_equals_pytorch(kernel: tuple[int, int], bias: bool) -> None:
    plain = convolution(kernel, bias=bias)
    grad = torch.randn(3, 6, 9, 11)
    expected = gradients(plain, images(), grad)
    found = gradients(DepthwiseConv2d.of(plain, compiled=False), images(), grad)
    assert len(found) == 3 + bias
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@KERNELS
def test_shifted_sums_equal_pytorch(kernel: tuple[int, int]) -> None:
    x, grad = images(), images().flip(0)
    expected = plain_gradients(x, grad, kernel)
    torch.testing.assert_close(shifted_gradients(x, grad, kernel), expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_summed_in_fp32() -> None:
    """In bf16, a sum of 8 significant bits would lose most of 6,336 small numbers."""
    x = torch.randn(64, 6, 9, 11).bfloat16()
    grad = torch.ones_like(x)
    for function in (plain_gradients, shifted_gradients):
        weight, bias = function(x, grad, (1, 1))
        assert weight.dtype == bias.dtype == torch.float32
        torch.testing.assert_close(weight.flatten(), x.double().sum((0, 2, 3)).float())
        assert bias.tolist() == [64 * 99] * 6


def test_layer_computes_in_bf16_under_autocast() -> None:
    plain = convolution((3, 3))
    layer = DepthwiseConv2d.of(plain, compiled=False)
    for x in (images(), images().bfloat16()):
        with autocast(CPU, "bf16"):
            found, expected = layer(x), plain(x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)
        found.float().sum().backward()
        assert plain.weight.grad is not None
        assert plain.weight.grad.dtype == torch.float32


def test_frozen_weight_gets_no_gradient() -> None:
    layer = DepthwiseConv2d.of(convolution((3, 3)), compiled=False).requires_grad_(False)
    x = images().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize(
    ("layer", "replaced"),
    [
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), True),
        (nn.Conv2d(6, 6, (3, 5), groups=6, padding="same"), True),
        (nn.Conv2d(6, 6, 3, groups=6), False),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1, stride=2), False),
        (nn.Conv2d(6, 6, 3, groups=6, padding="same", dilation=2), False),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(6, 6, 4, groups=6, padding="same"), False),
        (nn.Conv2d(6, 12, 3, groups=6, padding=1), False),
        (nn.Conv2d(6, 6, 3, groups=2, padding=1), False),
        (nn.Conv2d(6, 6, 3, padding=1), False),
        (nn.Linear(6, 6), False),
    ],
)
def test_only_equal_convolutions_are_replaced(layer: nn.Module, replaced: bool) -> None:
    assert DepthwiseConv2d.replaces(layer) == replaced
    if replaced:
        assert not DepthwiseConv2d.replaces(DepthwiseConv2d.of(layer, compiled=False))
