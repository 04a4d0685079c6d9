"""Pictures of arrays and tables: galleries, curves, confusion matrices."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.outputs import atomic_path

SAMPLES_PER_CLASS = 8
GALLERY_COLUMNS = 7
EXPLAINED_PER_LINE = 3
LONGEST_NAME = 18
MAP_COLOURS = "inferno"  # even in lightness, so that it reads without colour vision
DPI = 100

mpl.rcParams.update({"font.size": 9, "text.parse_math": False})  # a class may hold a $


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


def draw_gallery(pictures: NDArray[np.uint8], rows: pd.DataFrame, title: str) -> Figure:
    """Show pictures in their original pixels, each with what it is and what it was taken for.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        title: Stands above.
    """
    if not len(rows):
        return _draw_message(title, "There are none.")
    columns = min(GALLERY_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure, grid = _grid(lines, columns, tile=(1.9, 2.15), title=title)
    for axes, picture, row in zip(grid.flat, pictures, rows.itertuples(), strict=False):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(f"#{row.index}\n{answer(row.true, row.predicted, row.confidence)}", size=8)
    return figure


def draw_explanations(
    pictures: NDArray[np.uint8],
    rows: pd.DataFrame,
    predicted: NDArray[np.float32],
    true: NDArray[np.float32],
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Show each picture beside its maps of the predicted and the true class, on one scale.

    The scale runs from 0 to the strongest evidence in either map of that picture. A map without
    any evidence for its class says so.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        predicted: `[N, h, w]` raw maps.
        true: `[N, h, w]` raw maps.
        opacity: Of the map where it is strongest, 0 … 1.
        title: Stands above.
    """
    if not len(rows):
        return _draw_message(title, "There are none.")
    per_line = min(EXPLAINED_PER_LINE, len(rows))
    lines = -(-len(rows) // per_line)
    cells = predicted.shape[1]
    title += (
        f"\nmaps of {cells} × {cells} cells; one colour scale per picture, "
        f"0 to the stronger of its two maps"
    )
    figure, grid = _grid(lines, 3 * per_line, tile=(1.55, 1.95), title=title, bar=True)
    for number, row in enumerate(rows.itertuples()):
        line, place = divmod(number, per_line)
        whole, ours, truth = grid[line, 3 * place : 3 * place + 3]
        whole.imshow(pictures[number], interpolation="nearest")
        whole.set_title(f"#{row.index}\ntrue: {_short(row.true)}", size=8)
        top = max(predicted[number].max(), true[number].max())
        shown = (
            (
                ours,
                predicted[number],
                f"predicted:\n{_short(row.predicted)} ({row.confidence:.2f})",
            ),
            (truth, true[number], f"true:\n{_short(row.true)} ({row.true_probability:.2f})"),
        )
        for axes, evidence, caption in shown:
            _overlay(axes, pictures[number], evidence, top, opacity)
            axes.set_title(caption, size=8)
    scale = ScalarMappable(cmap=MAP_COLOURS)
    bar = figure.colorbar(scale, cax=figure.axes[-1], ticks=[0, 0.5, 1])
    bar.set_label("evidence for the class, share of the picture's strongest", size=8)
    return figure


def answer(true: str, predicted: str, confidence: float) -> str:
    """Say what a picture is and what it was taken for, over two lines."""
    return f"true: {_short(true)}\n→ predicted: {_short(predicted)} ({confidence:.2f})"


def _overlay(
    axes: Axes,
    picture: NDArray[np.uint8],
    evidence: NDArray[np.float32],
    top: float,
    opacity: float,
) -> None:
    """Lay a map over its picture: nothing where there is no evidence, `opacity` at `top`."""
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if evidence.max() <= 0:
        axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=512, interpolation="nearest")
        middle = ((width - 1) / 2, (height - 1) / 2)
        axes.text(*middle, "no positive\nevidence", color="white", size=8, ha="center", va="center")
        return
    axes.imshow(picture, interpolation="nearest", extent=extent)
    # Fine cells, so that the map's own grid does not show as blocks of the screen's smoothing.
    strength = np.clip(evidence / top, 0, 1)
    axes.imshow(
        strength,
        cmap=MAP_COLOURS,
        vmin=0,
        vmax=1,
        alpha=opacity * strength,
        interpolation="bilinear",
        extent=extent,
    )


def _grid(
    lines: int, columns: int, *, tile: tuple[float, float], title: str, bar: bool = False
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure with `[lines, columns]` empty axes, and with `bar` one more for a colour bar.

    Args:
        lines: Of tiles.
        columns: Of tiles.
        tile: Width and height of one, inches.
        title: Stands above.
        bar: Whether to leave room at the right for a colour bar.
    """
    head, room = 0.35 + 0.2 * title.count("\n"), 0.9 if bar else 0.0
    width, height = tile[0] * columns + room, tile[1] * lines + head
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, size=11, x=0.01, y=1 - 0.06 / height, ha="left", va="top")
    caption = 0.5 / tile[1]  # part of a tile's height
    layout = figure.add_gridspec(
        lines,
        columns,
        left=0.01,
        right=(tile[0] * columns - 0.01 * width) / width,
        bottom=0.05 / height,
        top=1 - (head + caption * tile[1]) / height,
        wspace=0.06,
        hspace=caption / (1 - caption),
    )
    grid = np.empty((lines, columns), dtype=object)
    for line in range(lines):
        for column in range(columns):
            grid[line, column] = figure.add_subplot(layout[line, column])
            grid[line, column].set_axis_off()
    if bar:
        tall = min(3.0, height - head - 0.4)
        figure.add_axes(
            (1 - 0.75 / width, (height - head - tall) / height, 0.15 / width, tall / height)
        )
    return figure, grid


def _draw_message(title: str, text: str) -> Figure:
    figure, grid = _grid(1, 1, tile=(5, 1.2), title=title)
    grid[0, 0].text(0.02, 0.9, text, va="top")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
