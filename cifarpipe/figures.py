"""Pictures of arrays and tables: galleries, curves, confusion matrices."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.outputs import atomic_path

SAMPLES_PER_CLASS = 8
DPI = 100

matplotlib.rcParams.update({"font.size": 9, "text.parse_math": False})  # a class may hold a $


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the picture alone."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=DPI, metadata={"Software": None})


def draw_samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: list[str]
) -> Figure:
    """Show the first images of each class, a row per class.

    Args:
        images: `[N, H, W, 3]`.
        labels: `[N]`.
        classes: Names, by label.
    """
    figure = Figure(figsize=(0.8 * SAMPLES_PER_CLASS + 1.6, 0.8 * len(classes)))
    grid = figure.subplots(len(classes), SAMPLES_PER_CLASS, squeeze=False)
    for label, row in enumerate(grid):
        for axes, i in zip(row, np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS], strict=False):
            axes.imshow(images[i], interpolation="nearest")
        for axes in row:
            axes.set_axis_off()
        row[0].text(-0.15, 0.5, classes[label], transform=row[0].transAxes, ha="right", va="center")
    figure.subplots_adjust(left=0.2, right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    return figure
