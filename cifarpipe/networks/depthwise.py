"""Depthwise convolutions whose gradients are fast on a CPU."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from cifarpipe.networks.compilation import compile_for

# (input, gradient of the output, shape of the kernel) → gradients of weight and bias
Gradients = Callable[[Tensor, Tensor, tuple[int, int]], tuple[Tensor, Tensor]]


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with odd kernel, stride 1 and "same" zero padding.

    PyTorch takes several times as long for the gradient of its weight as for all else, above all in
    bf16. Here it is computed in fp32, and by a compiled function if `compiled` is set. Everything
    else is `nn.Conv2d`'s.
    """

    compiled = False

    @staticmethod
    def replaces(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
        """Return whether a layer is such a convolution."""
        if type(conv) is not nn.Conv2d or conv.groups == 1:
            return False
        same = tuple(size // 2 for size in conv.kernel_size)
        return (
            conv.in_channels == conv.out_channels == conv.groups
            and all(size % 2 for size in conv.kernel_size)
            and conv.padding in ("same", same)
            and (conv.stride, conv.dilation) == ((1, 1), (1, 1))
            and conv.padding_mode == "zeros"
        )

    @classmethod
    def of(cls, conv: nn.Conv2d, *, compiled: bool) -> "DepthwiseConv2d":
        """Return a layer that shares the parameters of `conv`."""
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            groups=conv.groups,
            padding="same",
            bias=conv.bias is not None,
            device="meta",
        )
        layer.weight, layer.bias = conv.weight, conv.bias
        layer.compiled = compiled
        return layer.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[B, C, H, W]`."""
        gradients = compiled_gradients if self.compiled else plain_gradients
        out: Tensor = _Depthwise.apply(x, self.weight, self.bias, gradients)
        return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gradients: Gradients
    ) -> Tensor:
        out = F.conv2d(x, weight, bias, padding="same", groups=len(weight))
        # Under autocast the convolution has cast its inputs.
        ctx.save_for_backward(x.to(out.dtype), weight)
        ctx.gradients = gradients
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        kernel = weight.shape[2:]
        for_input = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3).to(grad.dtype)
            for_input = F.conv2d(grad, flipped, padding="same", groups=len(weight)).to(x.dtype)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            for_weight, for_bias = ctx.gradients(x, grad, kernel)
        return for_input, for_weight, for_bias if ctx.needs_input_grad[2] else None, None


def plain_gradients(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the gradients of a depthwise convolution's parameters, as PyTorch computes them.

    Args:
        x: Input `[B, C, H, W]`.
        grad: Gradient of the output, of the same shape.
        kernel: Height and width.

    Returns:
        Gradients of the weight, `[C, 1, *kernel]` float32, and of the bias, `[C]` float32.
    """
    channels = x.shape[1]
    grad = grad.float()
    padding = [size // 2 for size in kernel]
    weight = conv2d_weight(
        x.float(), (channels, 1, *kernel), grad, padding=padding, groups=channels
    )
    return weight, grad.sum((0, 2, 3))


def shifted_gradients(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the same as `plain_gradients`, as one sum for each position of the kernel.

    Compiled, all sums become one loop in which an image stays in the cache.
    """
    height, width = x.shape[2:]
    down, right = (size // 2 for size in kernel)
    grad = grad.permute(0, 2, 3, 1).float()
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, right, right, down, down))
    sums = [
        (padded[:, i : i + height, j : j + width].float() * grad).sum((1, 2))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    weight = torch.stack(sums).sum(1).T.reshape(-1, 1, *kernel)
    return weight, grad.sum((1, 2)).sum(0)


def compiled_gradients(x: Tensor, grad: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the same, compiled once for batches of all sizes."""
    for tensor in (x, grad):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return _compiled()(x, grad, kernel)


@cache
def _compiled() -> Gradients:
    return compile_for(shifted_gradients, torch.device("cpu"))
