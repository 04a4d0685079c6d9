"""What computes, and how: the memory of a process that computes on a CPU."""

import platform
import subprocess
import sys

import pytest

WORK = """
import resource, sys, torch
from cifarpipe.networks.devices import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    torch.empty(2**26, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = [faults() for _ in range(20)]
print(found[-1] - found[-6])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_used_again_without_clearing_its_pages() -> None:
    cleared = {}
    for way in ("plain", "keep"):
        command = [sys.executable, "-c", WORK, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cleared[way] = int(done.stdout)
    assert cleared["plain"] > 5 * 2**26 // 4096 * 0.9
    assert cleared["keep"] < 100
