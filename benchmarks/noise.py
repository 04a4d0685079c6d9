"""Images of noise to train on, for measurements of speed."""

from pathlib import Path

import numpy as np

from cifarpipe.store.prepared import Prepared, Split

CLASSES = 10
SIZE = 32


def noise_split(count: int) -> Split:
    """Return random images: speed does not depend on their content."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, CLASSES, count), np.arange(count))


def as_prepared(train: Split, val: Split | None = None) -> Prepared:
    """Return splits, by default without validation images, as training reads them."""
    card = {
        "classes": [f"class {label}" for label in range(CLASSES)],
        "image_size": SIZE,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    prepared = Prepared(Path(), card)
    # The places of its cached properties: nothing is read from files.
    vars(prepared).update(train=train, val=noise_split(0) if val is None else val)
    return prepared
