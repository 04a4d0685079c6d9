"""Pictures of arrays and tables: galleries, activation maps, curves, confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.outputs import atomic_path

DPI = 100
SAMPLES_PER_CLASS = 8
GALLERY_COLUMNS = 5
EXPLAINED_COLUMNS = 3  # of three tiles each
TILE = 1.45  # side of an explained picture, inches
LARGE_TILE = 1.95  # side of a picture in a gallery
GAP = 0.1
CAPTION = 0.36  # room for two lines above a picture, inches
LONGEST_NAME = 18
BAR = 0.75  # room for a colour bar, inches
LEAST_WIDTH = 6.5  # that a title fits, inches
MAP_COLOURS = "inferno"  # even in lightness, so that it reads without colour vision too

mpl.rcParams.update({"font.size": 9, "text.parse_math": False})  # a class may hold a $


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the picture alone."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=DPI, metadata={"Software": None})


def draw_samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> Figure:
    """Show the first images of each class, a row per class.

    Args:
        images: `[N, H, W, 3]`.
        labels: `[N]`.
        classes: Names, by label.
    """
    side, names = 0.75, 1.4
    figure, axes = _sheet(names + SAMPLES_PER_CLASS * (side + 0.04), len(classes) * (side + 0.04))
    for label, name in enumerate(classes):
        top = label * (side + 0.04)
        axes.text(names - 0.1, top + side / 2, _short(name), ha="right", va="center")
        for column, i in enumerate(np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS]):
            _place(axes, images[i], names + column * (side + 0.04), top, side)
    return figure


def draw_gallery(pictures: NDArray[np.uint8], rows: pd.DataFrame, title: str) -> Figure:
    """Show pictures in their original pixels, each with what it is and what it was taken for.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        title: Stands above.
    """
    columns = max(1, min(GALLERY_COLUMNS, len(rows)))
    figure, axes, places = _tiles(len(rows), columns, 1, LARGE_TILE, title)
    for picture, row, (x, y) in zip(pictures, rows.to_dict("records"), places, strict=True):
        _place(axes, picture, x, y, LARGE_TILE)
        taken = f"{_short(row['predicted'])} ({row['confidence']:.2f})"
        _caption(axes, x, y, f"#{row['index']}  true: {_short(row['true'])}\n→ predicted: {taken}")
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

    The scale runs from 0 to the strongest evidence in either map of that picture. Colour lies over
    the picture in grey, so that it means evidence and nothing else. A map without any evidence for
    its class says so.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        predicted: `[N, h, w]` raw maps.
        true: `[N, h, w]` raw maps.
        opacity: Of the map where it is strongest, 0 … 1.
        title: Stands above.
    """
    columns = max(1, min(EXPLAINED_COLUMNS, len(rows)))
    key = (
        f"Colour: evidence for the class, in a grid of {predicted.shape[1]} × {predicted.shape[2]};"
        " one scale for the two maps of a picture."
        if len(rows)
        else ""
    )
    figure, axes, places = _tiles(len(rows), columns, 3, TILE, f"{title}\n{key}", bar=True)
    for number, (row, (x, y)) in enumerate(zip(rows.to_dict("records"), places, strict=True)):
        _place(axes, pictures[number], x, y, TILE)
        _caption(axes, x, y, f"#{row['index']}\ntrue: {_short(row['true'])}")
        top = max(predicted[number].max(), true[number].max())
        shown = (
            ("predicted", predicted[number], row["confidence"]),
            ("true", true[number], row["true_probability"]),
        )
        for column, (which, evidence, probability) in enumerate(shown, start=1):
            left = x + column * (TILE + GAP / 2)
            _overlay(axes, pictures[number], evidence / max(top, 1e-30), left, y, opacity)
            caption = f"{which}:\n{_short(row[which])} ({probability:.2f})"
            _caption(axes, left, y, caption)
    return figure


def draw_curves(curves: Mapping[str, pd.DataFrame], earlier: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy and loss, in training and validation, of all models over the epochs.

    Args:
        curves: A history per model.
        earlier: Per model the curve of an earlier run, drawn dashed in the model's colour; columns
            that it lacks are left out.
    """
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    colours = mpl.color_sequences["petroff10"]
    columns = [("train_acc", "val_acc"), ("train_loss", "val_loss")]
    for axes, column in zip(panels.flat, [*columns[0], *columns[1]], strict=True):
        for number, (name, history) in enumerate(curves.items()):
            colour = colours[number % len(colours)]
            axes.plot(history.epoch, history[column], color=colour, label=name)
            before = earlier.get(name)
            if before is not None and column in before:
                style = {"linestyle": "--", "alpha": 0.6, "linewidth": 1}
                axes.plot(before.epoch, before[column], color=colour, **style)
        axes.grid(alpha=0.3)
    panels[0, 0].set(title="training", ylabel="accuracy")
    panels[0, 1].set(title="validation")
    panels[1, 0].set(ylabel="loss", xlabel="epoch")
    panels[1, 1].set(xlabel="epoch")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    return figure


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure and axes over all of it, in inches from the top left."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return figure, axes


def _tiles(
    count: int, columns: int, pictures: int, side: float, title: str, *, bar: bool = False
) -> tuple[Figure, Axes, list[tuple[float, float]]]:
    """Lay out `count` tiles of some `pictures` each, under a title, beside a colour bar.

    Returns:
        The figure, its axes in inches, and the top left corner of each tile's first picture.
    """
    head = 0.15 + 0.22 * len(title.splitlines())
    wide = pictures * side + (pictures - 1) * GAP / 2 + GAP
    tall = side + CAPTION + GAP
    lines = max(1, -(-count // columns))
    width = max(columns * wide + GAP + (BAR if bar else 0), LEAST_WIDTH)
    height = head + lines * tall
    figure, axes = _sheet(width, height)
    axes.text(GAP, 0.1, title, va="top", size=10)
    if not count:
        axes.text(GAP, head + 0.1, "There are none.", va="top")
    elif bar:
        left, bottom = columns * wide + 2 * GAP, height - head - CAPTION - side
        room = figure.add_axes((left / width, bottom / height, GAP / width, (side - GAP) / height))
        colours = figure.colorbar(ScalarMappable(cmap=MAP_COLOURS), cax=room, ticks=[0, 1])
        colours.ax.set_yticklabels(["none", "most"], size=7)
    places = [
        (GAP + (i % columns) * wide, head + CAPTION + (i // columns) * tall) for i in range(count)
    ]
    return figure, axes, places


def _place(axes: Axes, picture: NDArray[np.uint8], x: float, y: float, side: float) -> None:
    axes.imshow(picture, extent=(x, x + side, y + side, y), interpolation="nearest", aspect="auto")


def _caption(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y - 0.05, text, va="bottom", size=7.5, linespacing=1.15)


def _overlay(
    axes: Axes,
    picture: NDArray[np.uint8],
    strength: NDArray[np.float32],
    x: float,
    y: float,
    opacity: float,
) -> None:
    """Lay a map, 1 at its strongest, over its picture in grey."""
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    if strength.max() <= 0:
        _place(axes, grey // 2, x, y, TILE)
        axes.text(
            x + TILE / 2, y + TILE / 2, "no positive\nevidence", color="white", size=8,
            ha="center", va="center",
        )  # fmt: skip
        return
    _place(axes, grey, x, y, TILE)
    axes.imshow(
        np.clip(strength, 0, 1),
        cmap=MAP_COLOURS,
        vmin=0,
        vmax=1,
        alpha=opacity * np.clip(strength, 0, 1),
        extent=(x, x + TILE, y + TILE, y),
        interpolation="bilinear",
        aspect="auto",
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
