"""Random images, as a source returns them."""

import numpy as np

from cifarpipe.config.schema import Data
from cifarpipe.data.raw import RawData, RawSplit

CLASSES = ["ant", "bee", "cat"]


def make_split(count: int, seed: int, *, masks: bool = False, files: bool = False) -> RawSplit:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(CLASSES)).astype(np.int64)
    return RawSplit(
        rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels,
        files=[f"{CLASSES[label]}/{i}.png" for i, label in enumerate(labels)] if files else None,
        masks=rng.random((count, 8, 8)) < 0.3 if masks else None,
    )


def make_raw(**options: bool) -> RawData:
    return RawData(CLASSES, make_split(60, 0, **options), make_split(30, 1, **options))


def settings(**changes: int | None) -> Data:
    sizes: dict[str, int | None] = {"val_size": 12, "train_size": 30, "test_size": 15}
    return Data(source="cifar10", folder=None, **(sizes | changes))
