"""Pick the device, make it deterministic, and lay a network out in memory for it."""

import ctypes
import os
import platform

import torch
from torch import nn


def pick_device(number: int = 0) -> torch.device:
    """Return the GPU of that number if there is any GPU, else the CPU.

    A GPU is set up so that the same computation gives the same bits again, and so that fp32 means
    fp32: with TF32, predictions would depend on the batch size.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required for determinism
    torch.use_deterministic_algorithms(True)
    # Its backward pass is not deterministic, and fails for 64 tokens (PyTorch issue 196678).
    torch.backends.cuda.enable_cudnn_sdp(False)
    # Costs time, and nothing here reads uninitialised memory.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for later allocations of this process.

    By default it returns large blocks to the system, which must then clear every page of the next
    one: on a CPU that takes much of the time of a step whose tensors have tens of MiB. Does nothing
    with a C library other than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # of <malloc.h>
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)  # no block outside the heap, where it would be returned when freed
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the CPU's instruction set and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    threads = "1 thread" if count == 1 else f"{count} threads"
    return f"CPU ({torch.backends.cpu.get_cpu_capability()}, {threads})"


def memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory layout in which a network is fastest on `device`.

    That is channels-last where its class says so, by `channels_last_on`, a tuple of device types.
    """
    last = device.type in getattr(network, "channels_last_on", ())
    return torch.channels_last if last else torch.contiguous_format
