"""Precision: bf16 where the device computes it natively, and layers replaced by faster ones."""

from contextlib import AbstractContextManager

import torch
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.networks.devices import device_name


def computes_bf16(device: torch.device) -> bool:
    """Return whether `device` has instructions for bfloat16, and the library of kernels uses them.

    On a CPU, an environment variable can keep the library (oneDNN) from using them.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()


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


def adapt_layers(model: nn.Module, device: torch.device, precision: str, *, compiled: bool) -> None:
    """Replace, in place, layers that PyTorch computes slowly on a CPU; weights stay the same.

    These are depthwise convolutions (`DepthwiseConv2d`) and, in bf16, the fused attention kernel,
    which takes several times as long as explicit attention.
    """
    if device.type != "cpu":
        return
    for module in list(model.modules()):
        if precision == "bf16" and hasattr(module, "explicit"):  # attention
            setattr(module, "explicit", True)  # noqa: B010  (typed as Tensor | Module)
        for name, child in module.named_children():
            if DepthwiseConv2d.replaces(child):
                setattr(module, name, DepthwiseConv2d.of(child, compiled=compiled))
