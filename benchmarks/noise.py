"""Images of noise to train on, for measurements of speed."""

from dataclasses import dataclass, field

import numpy as np

from cifarpipe.store.prepared import Split

CLASSES = 10
SIZE = 32


def noise_split(count: int) -> Split:
    """Return random images: speed does not depend on their content."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, CLASSES, count), np.arange(count))


@dataclass(frozen=True)
class NoiseData:
    """The part of `Prepared` that training reads, without validation images."""

    train: Split
    val: Split = field(default_factory=lambda: noise_split(0))
    classes: tuple[str, ...] = tuple(f"class {label}" for label in range(CLASSES))
    image_size: int = SIZE
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
