"""What every source of images hands over."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


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
