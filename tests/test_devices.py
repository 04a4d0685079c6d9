"""Devices: which one is picked, and memory that stays with the process."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from cifarpipe.networks import devices
from cifarpipe.networks.devices import memory_format, pick_device

WORK = """
import resource, sys, torch
from cifarpipe.networks.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def page_faults():
    torch.empty(2**26, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = [page_faults() for _ in range(20)]
print(counts[-1] - counts[-6])
"""


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_reused_without_page_faults() -> None:
    cleared = {}
    for way in ("plain", "keep"):
        command = [sys.executable, "-c", WORK, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cleared[way] = int(done.stdout)
    assert cleared["plain"] > 5 * 2**26 // 4096 * 0.9
    assert cleared["keep"] < 100


def test_cpu_is_picked_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: calls.append("keep"))
    assert pick_device(3) == torch.device("cpu")
    assert calls == ["keep"]


class FasterOnCpu(nn.Module):
    channels_last_on = ("cpu",)


def test_layout_is_channels_last_where_the_network_says_so() -> None:
    assert memory_format(FasterOnCpu(), torch.device("cpu")) == torch.channels_last
    assert memory_format(FasterOnCpu(), torch.device("cuda")) == torch.contiguous_format
    assert memory_format(nn.Module(), torch.device("cpu")) == torch.contiguous_format
