"""The data that every source of images returns."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
BLOCK = 2**26  # bytes of images that are in memory at a time


@dataclass(frozen=True)
class RawSplit:
    """Images in ascending order of their original index."""

    images: Images
    """`[N, H, W, 3]` uint8; may be memory-mapped."""
    labels: Labels
    """`[N]`, positions in the list of classes."""
    index: Labels | None = None
    """`[N]` original index of each image; by default its position."""
    files: list[str] | None = None
    """`class/file name` of each image, if the source has files."""
    masks: NDArray[np.bool_] | None = None
    """`[N, H, W]`, true on the object, if the source knows it."""

    def original(self, positions: Labels) -> Labels:
        """Return the original index of the images at some positions."""
        return positions if self.index is None else self.index[positions]

    def blocks(self, positions: Labels | None = None) -> Iterator[Images]:
        """Return the images at some positions, or all, in parts of at most `BLOCK` bytes."""
        chosen = np.arange(len(self.images)) if positions is None else positions
        size = max(BLOCK // max(self.images[:1].nbytes, 1), 1)
        for start in range(0, len(chosen), size):
            yield self.images[chosen[start : start + size]]


@dataclass(frozen=True)
class RawData:
    """All images of a source, before they are split."""

    classes: list[str]
    train: RawSplit
    test: RawSplit

    def fingerprint(self) -> str:
        """Return the SHA-256 of classes, pixels and labels, in order."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(split.images.shape).encode())
            for block in split.blocks():
                digest.update(np.ascontiguousarray(block).data)
            digest.update(split.labels.astype("<i8").data)
        return digest.hexdigest()
