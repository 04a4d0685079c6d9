"""Accuracy on slices of the test split by brightness, contrast and sharpness."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.results.intervals import wilson_interval

PARTS = 4
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
AT_ONCE = 1000  # images


def image_properties(images: NDArray[np.uint8]) -> pd.DataFrame:
    """Measure images.

    Args:
        images: `[N, S, S, 3]`.

    Returns:
        A row per image: `brightness` (mean grey value, 0 to 1), `contrast` (standard deviation of
        the grey values), `sharpness` (standard deviation of their discrete Laplacian).
    """
    parts = [_measure(images[i : i + AT_ONCE]) for i in range(0, len(images), AT_ONCE)]
    return pd.concat(parts, ignore_index=True)


def _measure(images: NDArray[np.uint8]) -> pd.DataFrame:
    grey = images @ LUMA / 255
    laplacian = (
        grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
        - 4 * grey[:, 1:-1, 1:-1]
    )  # fmt: skip
    return pd.DataFrame(
        {
            "brightness": grey.mean(axis=(1, 2)),
            "contrast": grey.std(axis=(1, 2)),
            "sharpness": laplacian.std(axis=(1, 2)),
        }
    )


def slice_table(properties: pd.DataFrame, correct: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the accuracy in each quarter of the test images, sorted by each property.

    Args:
        properties: A row per image.
        correct: `[N]` whether each prediction is correct.

    Returns:
        Columns `property`, `quarter` (1: the lowest values), `low` and `high` (range of values),
        `images`, `accuracy`, `accuracy_low`, `accuracy_high` (95% interval).
    """
    rows = []
    for name in properties:
        order = np.argsort(properties[name].to_numpy(), kind="stable")
        for number, part in enumerate(np.array_split(order, PARTS), start=1):
            if not len(part):
                continue
            values, hits = properties[name].to_numpy()[part], int(correct[part].sum())
            low, high = wilson_interval(hits, len(part))
            rows.append(
                {
                    "property": name,
                    "quarter": number,
                    "low": values.min(),
                    "high": values.max(),
                    "images": len(part),
                    "accuracy": hits / len(part),
                    "accuracy_low": low,
                    "accuracy_high": high,
                }
            )
    return pd.DataFrame(rows).round(4)
