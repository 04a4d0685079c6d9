"""Pictures of arrays and tables: galleries, activation maps, curves, confusion matrices."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
EXPLAINED_WIDTH = 8  # tiles
TILE = 1.45  # side of an explained picture, inches
LARGE_TILE = 1.95  # side of a picture in a gallery
ANSWER_TILE = 2.2  # side of the one picture of an answer
GAP = 0.1
CAPTION = 0.36  # room for two lines above a picture, inches
LONGEST_NAME = 18
BAR = 0.95  # room for a colour bar, inches
LEAST_WIDTH = 6.5  # that a title fits, inches
# Read without full colour vision too: one by its lightness, one as blue and yellow are told apart.
MAP_COLOURS = "inferno"
CONTRAST_COLOURS = "PuOr"

mpl.rcParams.update({"font.size": 9, "text.parse_math": False})  # a class may hold a $


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the picture alone."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
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
    """Show each picture beside its maps: of the predicted and the true class, and their difference.

    The maps of a picture share one scale, from 0 to the strongest evidence in either; the
    difference has its own, with 0 in the middle. Colour lies over the picture in grey, so that it
    means evidence and nothing else. A map without any evidence for its class says so. Where no
    prediction is wrong there is one map.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        predicted: `[N, h, w]` raw maps.
        true: `[N, h, w]` raw maps.
        opacity: Of the map where it is strongest, 0 … 1.
        title: Stands above.
    """
    contrasted = bool((rows.predicted != rows.true).any())
    tiles = 4 if contrasted else 2
    columns = max(1, min(EXPLAINED_WIDTH // tiles, len(rows)))
    key = [f"Colour: evidence for the class, in a grid of {predicted.shape[1]} × "
           f"{predicted.shape[2]}."] * bool(len(rows))  # fmt: skip
    if contrasted:
        key[0] += " The maps of the two classes share one scale."
        key.append("Their difference: purple speaks for the predicted class, orange for the true.")
    heading = "\n".join([title, *key])
    figure, axes, places = _tiles(len(rows), columns, tiles, TILE, heading)
    if len(rows):
        _colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    if contrasted:
        _colour_bar(figure, CONTRAST_COLOURS, ["true", "predicted"], 1)
    for number, (row, (x, y)) in enumerate(zip(rows.to_dict("records"), places, strict=True)):
        lefts = [x + column * (TILE + GAP / 2) for column in range(tiles)]
        picture = pictures[number]
        _place(axes, picture, x, y, TILE)
        _caption(axes, x, y, f"#{row['index']}\ntrue: {_short(row['true'])}")
        top = max(predicted[number].max(), true[number].max(), 1e-30)
        _evidence(axes, picture, predicted[number] / top, lefts[1], y, opacity)
        taken = f"predicted:\n{_short(row['predicted'])} ({row['confidence']:.2f})"
        _caption(axes, lefts[1], y, taken)
        if contrasted:
            _evidence(axes, picture, true[number] / top, lefts[2], y, opacity)
            _caption(
                axes, lefts[2], y, f"true:\n{_short(row['true'])} ({row['true_probability']:.2f})"
            )
            _difference(axes, picture, predicted[number] - true[number], lefts[3], y, opacity)
            _caption(axes, lefts[3], y, "predicted − true")
    return figure


def draw_answer(
    picture: NDArray[np.uint8],
    name: str,
    classes: Sequence[str],
    probabilities: NDArray[np.float64],
    maps: NDArray[np.float32],
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Show one picture beside the maps of its most probable classes, and how the first two differ.

    All maps share one scale, from 0 to the strongest evidence in any. Lines part the cells of the
    maps' own grid. A single map is of no class: the same for each.

    Args:
        picture: `[H, W, 3]`, as the network sees it.
        name: Of its file.
        classes: The most probable first; at least as many as maps.
        probabilities: Of these.
        maps: `[N, h, w]` raw.
        opacity: Of a map where it is strongest, 0 … 1.
        title: Stands above.
    """
    count, (rows, columns) = len(maps), maps.shape[1:]
    contrasted = count > 1
    key = f"Colour: what mattered, whatever the class; the map's own grid is {rows} × {columns}."
    if contrasted:
        key = (
            f"Colour: evidence for the class, on one scale for all; the maps' own grid is {rows} × "
            f"{columns}.\nRight: the first two maps' difference, on its own scale; purple "
            f"speaks for the first class, orange for the second."
        )
    tiles = 1 + count + contrasted
    figure, axes, ((x, y),) = _tiles(1, 1, tiles, ANSWER_TILE, f"{title}\n{key}")
    lefts = [x + tile * (ANSWER_TILE + GAP / 2) for tile in range(tiles)]
    _place(axes, picture, x, y, ANSWER_TILE)
    size = f"{picture.shape[1]} × {picture.shape[0]}"
    _caption(axes, x, y, f"{_short(name)}\nas the network sees it: {size}")
    _colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    top = max(maps.max(), 1e-30)
    for number, left in enumerate(lefts[1 : count + 1]):
        _evidence(axes, picture, maps[number] / top, left, y, opacity, ANSWER_TILE)
        said = f"{number + 1}. {_short(classes[number])}\nprobability {probabilities[number]:.4f}"
        _caption(axes, left, y, said if contrasted else "any class")
    if contrasted:
        _colour_bar(figure, CONTRAST_COLOURS, ["second", "first"], 1)
        difference = maps[0] - maps[1]
        strength = difference / max(np.abs(difference).max(), 1e-30)
        # An even veil: both ends of these colours would be lost on a dark picture.
        veil = np.full_like(strength, opacity)
        place = (lefts[-1], y, ANSWER_TILE)
        _overlay(axes, _grey(picture), strength, veil, CONTRAST_COLOURS, (-1, 1), *place)
        _caption(axes, lefts[-1], y, f"{_short(classes[0])} −\n{_short(classes[1])}")
    for left in lefts[1:]:
        _grid(axes, rows, columns, left, y, ANSWER_TILE)
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
    count: int, columns: int, pictures: int, side: float, title: str
) -> tuple[Figure, Axes, list[tuple[float, float]]]:
    """Lay out `count` tiles of some `pictures` each, under a title, with room for colour bars.

    Returns:
        The figure, its axes in inches, and the top left corner of each tile's first picture.
    """
    head = 0.15 + 0.22 * len(title.splitlines())
    wide = pictures * side + (pictures - 1) * GAP / 2 + GAP
    tall = side + CAPTION + GAP
    lines = max(1, -(-count // columns))
    width = max(columns * wide + GAP + (BAR if pictures > 1 else 0), LEAST_WIDTH)
    height = head + lines * tall
    figure, axes = _sheet(width, height)
    axes.text(GAP, 0.1, title, va="top", size=10)
    if not count:
        axes.text(GAP, head + 0.1, "There are none.", va="top")
    places = [
        (GAP + (i % columns) * wide, head + CAPTION + (i // columns) * tall) for i in range(count)
    ]
    return figure, axes, places


def _colour_bar(figure: Figure, colours: str, ends: list[str], number: int) -> None:
    """Put a bar at the right edge, the first one at the top and the next ones under it."""
    width, height = figure.get_size_inches()
    tall = min(TILE, (height - 0.2) / 2) - 2 * GAP
    bottom = height - (number + 1) * (tall + 3 * GAP)
    place = ((width - BAR + 2 * GAP) / width, bottom / height, GAP / width, tall / height)
    bar = figure.colorbar(ScalarMappable(cmap=colours), cax=figure.add_axes(place), ticks=[0, 1])
    bar.ax.set_yticklabels(ends, size=7)


def _place(axes: Axes, picture: NDArray[np.uint8], x: float, y: float, side: float) -> None:
    axes.imshow(picture, extent=(x, x + side, y + side, y), interpolation="nearest", aspect="auto")


def _caption(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y - 0.05, text, va="bottom", size=7.5, linespacing=1.15)


def _evidence(
    axes: Axes,
    picture: NDArray[np.uint8],
    strength: NDArray[np.float32],
    x: float,
    y: float,
    opacity: float,
    side: float = TILE,
) -> None:
    """Lay a map, 1 at its strongest, over its picture in grey."""
    grey = _grey(picture)
    if strength.max() <= 0:
        _place(axes, grey // 2, x, y, side)
        axes.text(
            x + side / 2, y + side / 2, "no positive\nevidence", color="white", size=8,
            ha="center", va="center",
        )  # fmt: skip
        return
    strength = np.clip(strength, 0, 1)
    _overlay(axes, grey, strength, opacity * strength, MAP_COLOURS, (0, 1), x, y, side)


def _difference(
    axes: Axes,
    picture: NDArray[np.uint8],
    difference: NDArray[np.float32],
    x: float,
    y: float,
    opacity: float,
) -> None:
    """Lay a signed map over its picture in grey, its largest absolute value in full colour."""
    strength = difference / max(np.abs(difference).max(), 1e-30)
    shown = opacity * np.abs(strength)
    _overlay(axes, _grey(picture), strength, shown, CONTRAST_COLOURS, (-1, 1), x, y, TILE)


def _overlay(
    axes: Axes,
    grey: NDArray[np.uint8],
    strength: NDArray[np.float32],
    opacity: NDArray[np.float32],
    colours: str,
    limits: tuple[float, float],
    x: float,
    y: float,
    side: float,
) -> None:
    _place(axes, grey, x, y, side)
    axes.imshow(
        strength,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        alpha=opacity,
        extent=(x, x + side, y + side, y),
        interpolation="bilinear",
        aspect="auto",
    )


def _grid(axes: Axes, rows: int, columns: int, x: float, y: float, side: float) -> None:
    """Part a map's cells by fine lines."""
    style: dict[str, Any] = {"colors": "0.6", "linewidth": 0.5, "alpha": 0.4}
    axes.hlines(y + side * np.arange(1, rows) / rows, x, x + side, **style)
    axes.vlines(x + side * np.arange(1, columns) / columns, y, y + side, **style)


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
