"""Exact duplicates across splits (leakage)."""

from collections.abc import Mapping
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def shared_images(splits: Mapping[str, NDArray[np.uint8]]) -> dict[str, int]:
    """Count the images of each split that are, bit for bit, in an earlier split, too.

    Args:
        splits: `[N, H, W, 3]` images of each split, by its name.

    Returns:
        A number for each pair of splits: `test_in_train` is how many test images are in train.
    """
    hashes = {
        name: [blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        for name, images in splits.items()
    }
    return {
        f"{later}_in_{earlier}": sum(map(set(hashes[earlier]).__contains__, hashes[later]))
        for earlier, later in combinations(hashes, 2)
    }
