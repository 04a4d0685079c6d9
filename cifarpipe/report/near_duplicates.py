"""Near-duplicates across splits: test images that are almost a training image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Split

# Of the 286 test images of CIFAR-10 that arXiv:1902.00423 calls duplicates, near-duplicates or very
# similar, 40% reach it; see docs/explanations.md.
CORRELATION = 0.9
COLUMNS = ["position", "train_position", "index", "train_index", "correlation", "same_label"]
AT_ONCE = 1000  # images


def near_duplicates(test: Split, train: Split, neighbours: Sequence[Neighbours]) -> pd.DataFrame:
    """Compare the pixels of each test image with those of its neighbours in any network's features.

    Args:
        test: The images asked about.
        train: The images they are compared with.
        neighbours: Of each model.

    Returns:
        A row per test image with a near-duplicate, of the most similar one: `position` and
        `train_position` in the splits, `index` and `train_index` in the source, `correlation` of
        their pixels, and whether they have the `same_label`. The most similar pair first.
    """
    nearest = np.concatenate([each.nearest for each in neighbours], axis=1)
    rows = []
    for start in range(0, len(test), AT_ONCE):
        part = slice(start, min(start + AT_ONCE, len(test)))
        images = _standardised(test.images[part])
        best, partner = np.full(len(images), -2.0), np.zeros(len(images), np.int64)
        for column in nearest[part].T:
            correlation = (images * _standardised(train.images[column])).sum(axis=1)
            better = correlation > best
            best[better], partner[better] = correlation[better], column[better]
        for row in np.flatnonzero(best >= CORRELATION):
            position, other = start + int(row), int(partner[row])
            indices = int(test.index[position]), int(train.index[other])
            same = bool(test.labels[position] == train.labels[other])
            rows.append([position, other, *indices, round(float(best[row]), 4), same])
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)


def _standardised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the pixels of each image `[N, H, W, 3]` as `[N, H * W * 3]` of unit length.

    Each channel is centred, or images of about the same colour would correlate.
    """
    pixels = images.astype(np.float32)
    pixels = (pixels - pixels.mean(axis=(1, 2), keepdims=True)).reshape(len(images), -1)
    length = np.sqrt(np.square(pixels).sum(axis=1, keepdims=True))
    return np.asarray(pixels / np.where(length > 0, length, 1), np.float32)
