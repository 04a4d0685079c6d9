"""Near-duplicates across splits: test images that are almost a training image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Split

# Of the 286 test images of CIFAR-10 that arXiv:1902.00423 calls duplicates, near-duplicates or very
# similar, 109 reach it; see docs/explanations.md.
CORRELATION = 0.9
COLUMNS = ["position", "train_position", "correlation", "same_label"]
VALUES_AT_ONCE = 2**22  # pixels × channels: 16 MiB in float32
Pixels = NDArray[np.float32]


def near_duplicates(test: Split, train: Split, neighbours: Sequence[Neighbours]) -> pd.DataFrame:
    """Compare the pixels of each test image with those of its neighbours in any network's features.

    Args:
        test: The images asked about.
        train: The images they are compared with.
        neighbours: Of each model.

    Returns:
        A row per test image with a near-duplicate, of the most similar one: `position` and
        `train_position` in the splits, `index` and `train_index` in the source, `file` and
        `train_file` (empty without files), `correlation` of their pixels, and whether they have the
        `same_label`. The most similar pair first.
    """
    nearest = np.sort(np.concatenate([each.nearest for each in neighbours], axis=1), axis=1)
    first = np.diff(nearest, axis=1, prepend=-1) > 0  # not the same as in another model
    norms = np.ones(len(train), np.float32)
    for part in _parts(np.unique(nearest), train):
        norms[part] = _norms(_centred(train.images[part]))
    rows = []
    for part in _parts(np.arange(len(test)), test):
        images = _centred(test.images[part])
        images /= _norms(images)[:, None]
        best, partner = np.full(len(part), -2.0), np.zeros(len(part), np.int64)
        for column, new in zip(nearest[part].T, first[part].T, strict=True):
            (asked,) = np.nonzero(new)
            others = column[asked]
            # The others need no centring: the values of the first add up to 0 in each channel.
            products = np.einsum("nv,nv->n", images[asked], _values(train.images[others]))
            correlation = products / norms[others]
            better = correlation > best[asked]
            best[asked[better]], partner[asked[better]] = correlation[better], others[better]
        for row in np.flatnonzero(best >= CORRELATION):
            position, other = int(part[row]), int(partner[row])
            same = bool(test.labels[position] == train.labels[other])
            rows.append([position, other, round(float(best[row]), 4), same])
    table = pd.DataFrame(rows, columns=COLUMNS)
    test_rows, train_rows = (table[key].to_numpy(np.int64) for key in COLUMNS[:2])
    table.insert(2, "index", test.index[test_rows])
    table.insert(3, "train_index", train.index[train_rows])
    table.insert(4, "file", test.names(test_rows))
    table.insert(5, "train_file", train.names(train_rows))
    return table.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)


def _parts(positions: NDArray[np.int64], split: Split) -> list[NDArray[np.int64]]:
    """Split positions so that few values are in memory at a time."""
    values = split.images[:1].size or 1
    at_once = max(1, VALUES_AT_ONCE // values)
    return np.split(positions, range(at_once, len(positions), at_once))


def _values(images: NDArray[Any]) -> Pixels:
    """Return the pixels of each image `[N, H, W, 3]` as `[N, H * W * 3]`."""
    return images.reshape(len(images), math.prod(images.shape[1:])).astype(np.float32)


def _centred(images: NDArray[np.uint8]) -> Pixels:
    """Return pixels of mean 0 in each channel, or images of about the same colour would correlate.

    Args:
        images: `[N, H, W, 3]`.

    Returns:
        `[N, H * W * 3]`.
    """
    return _values(images - images.mean(axis=(1, 2), keepdims=True, dtype=np.float32))


def _norms(images: Pixels) -> Pixels:
    """Return the Euclidean norm of each row; 1 for a row of zeros."""
    norms = np.sqrt(np.einsum("nv,nv->n", images, images))
    return np.where(norms > 0, norms, 1)
