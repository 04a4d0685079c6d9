"""Settings and fixtures of all tests."""

import os
import signal

# Tests run in several processes, each with one thread, so that they do not compete for cores. Set
# before torch is imported, and in the environment, so that commands started by tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params

# A background job of a shell ignores Ctrl-C, and so do the processes it starts; one test needs it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_params() -> Params:
    return load_params("params.demo.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a path for a parameter file."""
    return tmp_path / "params.yaml"


@pytest.fixture
def image_batch() -> Tensor:
    """Return `[64, 3, 32, 32]` uint8 without black, so that black padding can be recognised."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(1, 256, (64, 3, 32, 32), generator=generator).to(torch.uint8)
