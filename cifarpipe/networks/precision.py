"""Compute in bf16 where the device does so natively, layer by layer as it is fastest."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from cifarpipe.config.errors import UserError
from cifarpipe.networks.devices import device_name


def computes_bf16(device: torch.device) -> bool:
    """Return whether `device` has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def pick_precision(wanted: str, device: torch.device) -> str:
    """Return `bf16` or `fp32`.

    Args:
        wanted: `auto`, `bf16` or `fp32`.
        device: The device that computes.

    Raises:
        UserError: bf16 is wanted on a GPU that does not support it.
    """
    if wanted == "auto":
        return "bf16" if computes_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not computes_bf16(device):
        raise UserError(
            f"train.precision is bf16, which {device_name(device)} does not support.\n"
            f"Set it to auto or fp32."
        )
    return wanted


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs at `precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def adapt_layers(model: nn.Module, device: torch.device, precision: str) -> None:
    """Replace, in place, what is slow at this precision on this device; weights stay the same.

    In bf16 on a CPU, the gradients of a depthwise convolution take several times as long as in
    fp32, and the fused attention kernel several times as long as explicit attention.
    """
    if device.type != "cpu" or precision != "bf16":
        return
    for module in list(model.modules()):
        if hasattr(module, "explicit"):  # attention
            setattr(module, "explicit", True)  # noqa: B010  (typed as Tensor | Module)
        for name, child in module.named_children():
            if type(child) is nn.Conv2d and child.groups > 1:
                setattr(module, name, Float32Conv2d.of(child))


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes in fp32 under CPU autocast, and returns autocast's type."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "Float32Conv2d":
        """Return a layer that shares the parameters of `conv`."""
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device="meta",
        )
        layer.weight, layer.bias = conv.weight, conv.bias
        return layer.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[B, C, H, W]`."""
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))
