"""Which device computes, and in which precision."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager

import torch

from cifarpipe.config.errors import UserError


def pick_device(number: int = 0) -> torch.device:
    """Return the GPU of that number if there are any, else the CPU.

    A GPU is set up so that the same work gives the same bits again, and so that what is asked for
    in fp32 is computed in fp32: with its shortened TF32, predictions would depend on how many
    images are computed at a time.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what repeatable products need
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It costs time, and nothing here reads memory that was not written.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def keep_freed_memory() -> None:
    """Let this process keep the memory it has freed for what it allocates next.

    By default the C library gives large blocks back at once, and the system must clear every page
    of the next one: on a CPU that is much of the time of a step whose tensors are tens of MiB.
    A C library that can't be asked to is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # of <malloc.h>
    setting = ctypes.CDLL(None).mallopt
    setting(mmap_max, 0)  # no block outside the heap, where it would be given back when freed
    setting(trim_threshold, 2**31 - 1)
    setting(top_pad, 2**28)


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


# Architectures whose convolutions are quicker where channels come last in memory; from `make bench`
# (docs/performance.md). What is not measured is left as PyTorch does it.
CHANNELS_LAST = {("convmixer", "cpu"), ("resnet18_ln", "cpu")}


def memory_format(arch: str, device: torch.device) -> torch.memory_format:
    """Return the layout in which a network of `arch` is quickest on `device`."""
    last = (arch, device.type) in CHANNELS_LAST
    return torch.channels_last if last else torch.contiguous_format


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which a forward pass runs at `precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
