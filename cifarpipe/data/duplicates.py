"""Exact duplicates across splits (leakage)."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def shared_images(splits: Mapping[str, Iterable[NDArray[np.uint8]]]) -> dict[str, int]:
    """Count the images of each split that are, bit for bit, in an earlier split, too.

    Args:
        splits: Blocks `[N, H, W, 3]` of the images of each split, by its name.

    Returns:
        A number for each pair of splits: `test_in_train` is how many test images are in train.
    """
    hashes = {
        name: [
            blake2b(image.tobytes(), digest_size=16).digest() for block in blocks for image in block
        ]
        for name, blocks in splits.items()
    }
    return {
        f"{later}_in_{earlier}": sum(map(set(hashes[earlier]).__contains__, hashes[later]))
        for earlier, later in combinations(hashes, 2)
    }
