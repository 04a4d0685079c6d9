"""Exact duplicates: across splits (leakage), and within one with different labels."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = Sequence[bytes]


def hash_images(blocks: Iterable[NDArray[np.uint8]]) -> list[bytes]:
    """Return a hash of each image's pixels.

    Args:
        blocks: Images `[N, H, W, 3]`, in parts.
    """
    return [
        blake2b(image.tobytes(), digest_size=16).digest() for block in blocks for image in block
    ]


def shared_images(hashes: Mapping[str, Hashes]) -> dict[str, int]:
    """Count the images of each split that are, bit for bit, in an earlier split, too.

    Args:
        hashes: Of the images of each split, by its name.

    Returns:
        A number for each pair of splits: `test_in_train` is how many test images are in train.
    """
    return {
        f"{later}_in_{earlier}": sum(map(set(hashes[earlier]).__contains__, hashes[later]))
        for earlier, later in combinations(hashes, 2)
    }


def conflicting_images(hashes: Hashes, labels: NDArray[np.int64]) -> list[int]:
    """Return the positions of images that are equal to others with another label.

    Positions of equal images follow each other.

    Args:
        hashes: Of the images.
        labels: `[N]`.
    """
    groups: dict[bytes, list[int]] = {}
    for position, key in enumerate(hashes):
        groups.setdefault(key, []).append(position)
    return [
        position
        for group in groups.values()
        if len({int(labels[i]) for i in group}) > 1
        for position in group
    ]
