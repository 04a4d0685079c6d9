"""Which device computes, and in which precision."""

import os
from contextlib import AbstractContextManager

import torch

from cifarpipe.errors import UserError


def pick_device(number: int = 0) -> torch.device:
    """Return the GPU of that number if there are any, else the CPU.

    A GPU is set up so that the same work gives the same bits again, and so that what is asked for
    in fp32 is computed in fp32: with its shortened TF32, predictions would depend on how many
    images are computed at a time.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what repeatable products need
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It costs time, and nothing here reads memory that was not written.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def device_name(device: torch.device) -> str:
    """Return a name to stand beside a figure: the GPU's, or the CPU's instruction set."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"


def computes_bf16(device: torch.device) -> bool:
    """Say whether `device` has instructions for bfloat16, so that it saves time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def pick_precision(wanted: str, device: torch.device) -> str:
    """Return `bf16` or `fp32`.

    Args:
        wanted: `auto`, `bf16` or `fp32`.
        device: On which to compute.

    Raises:
        UserError: bf16 is wanted on a GPU that does not have it.
    """
    if wanted == "auto":
        return "bf16" if computes_bf16(device) else "fp32"
    if wanted == "bf16" and device.type == "cuda" and not computes_bf16(device):
        raise UserError(
            f"train.precision is bf16, which {device_name(device)} does not compute.\n"
            f"Set it to auto or fp32."
        )
    return wanted


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs at `precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
