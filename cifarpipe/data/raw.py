"""What every source of images hands over, and where raw data lies."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

RAW_ROOT_VARIABLE = "CIFARPIPE_DATA"


@dataclass(frozen=True)
class RawSplit:
    """Images in their original order; an image's position here is its original index."""

    images: Images
    """`[N, H, W, 3]` uint8."""
    labels: Labels
    """`[N]`, positions in the classes' list."""
    files: list[str] | None = None
    """`class/file name` of each image, where there are files."""
    masks: NDArray[np.bool_] | None = None
    """`[N, H, W]`, true on the object, where it is known."""


@dataclass(frozen=True)
class RawData:
    """All that a source offers, before anything is held out or left out."""

    classes: list[str]
    train: RawSplit
    test: RawSplit

    def fingerprint(self) -> str:
        """Return a SHA-256 over classes, pixels and labels, in their order."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(split.images.shape).encode())
            digest.update(np.ascontiguousarray(split.images).data)
            digest.update(split.labels.astype("<i8").data)
        return digest.hexdigest()


def raw_root() -> Path:
    """Return the folder of raw data: `$CIFARPIPE_DATA`, else `data/raw`.

    It lies outside DVC's graph, so that temporary workspaces of experiments find it too.
    """
    return Path(os.environ.get(RAW_ROOT_VARIABLE) or "data/raw").expanduser()
