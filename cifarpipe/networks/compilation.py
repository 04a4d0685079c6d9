"""Compile functions and networks."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compile_for(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """Return a function or network, compiled for tensors of fixed shapes on a device.

    PyTorch keeps generated code on disk, but does not record for which instructions of a CPU it was
    generated: code for AVX-512, compiled again where there is only AVX2, computes wrong results.
    The option names the width of the instructions, and options are recorded.
    """
    if device.type != "cpu":
        return torch.compile(function, dynamic=False)
    from torch._inductor.cpu_vec_isa import pick_vec_isa  # a second

    width = pick_vec_isa().bit_width()
    return torch.compile(function, dynamic=False, options={"cpp.simdlen": width})
