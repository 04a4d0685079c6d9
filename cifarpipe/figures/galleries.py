"""Galleries of images: samples of each class, selected predictions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.figures.layout import Square, canvas, caption, hundredths, lay_out, place, short

SAMPLES_PER_CLASS = 8
GALLERY_COLUMNS = 5
GALLERY_TILE = 1.95  # side of an image in a gallery, inches


def draw_samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> Figure:
    """Draw the first images of each class, a row per class.

    Args:
        images: `[N, H, W, 3]`.
        labels: `[N]`.
        classes: Names, by label.
    """
    side, names = 0.75, 1.4
    figure, axes = canvas(names + SAMPLES_PER_CLASS * (side + 0.04), len(classes) * (side + 0.04))
    for label, name in enumerate(classes):
        top = label * (side + 0.04)
        axes.text(names - 0.1, top + side / 2, short(name), ha="right", va="center")
        for column, i in enumerate(np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS]):
            place(axes, images[i], Square(names + column * (side + 0.04), top, side))
    return figure


def draw_gallery(images: NDArray[np.uint8], rows: pd.DataFrame, title: str) -> Figure:
    """Draw images in their original pixels, each with its true and its predicted class.

    Args:
        images: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        title: Of the figure.
    """
    columns = max(1, min(GALLERY_COLUMNS, len(rows)))
    figure, axes, places = lay_out(len(rows), columns, 1, GALLERY_TILE, title)
    for image, row, square in zip(images, rows.to_dict("records"), places, strict=True):
        place(axes, image, square)
        predicted = f"{short(row['predicted'])} ({hundredths(row['confidence'])})"
        caption(
            axes, square, f"#{row['index']}  true: {short(row['true'])}\n→ predicted: {predicted}"
        )
    return figure
