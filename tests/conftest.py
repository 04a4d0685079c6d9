"""What many tests share."""

import os
import signal

# Tests run in several processes: one thread each, or they wait for one another. Before torch loads,
# and in the environment, so that the commands which tests start do likewise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Augment, Params

# A shell's job in the background ignores Ctrl-C, and so would all that it starts; a test needs it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_params() -> Params:
    return load_params("params.demo.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where a test may write a parameter file."""
    return tmp_path / "params.yaml"


@pytest.fixture
def pictures() -> Tensor:
    """Return `[64, 3, 32, 32]` uint8, at least 1, so that black from outside can be told apart."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(1, 256, (64, 3, 32, 32), generator=generator).to(torch.uint8)


@pytest.fixture(scope="session")
def no_augment() -> Augment:
    """Return a recipe that changes nothing."""
    return Augment.model_validate(
        {
            "crop": 0,
            "resized_crop": {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
            "flip": "none",
            "randaugment": {"n": 0, "m": 9, "omit": []},
            "color_jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
            "rotate": 0.0,
            "erasing": {"probability": 0.0, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]},
            "cutout": 0,
            "mixup": {"probability": 0.0, "alpha": 0.8},
            "cutmix": {"probability": 0.0, "alpha": 1.0},
        }
    )
