"""Maps over the images they explain."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.figures.layout import GAP, caption, lay_out, place, short
from cifarpipe.figures.overlays import (
    CONTRAST_COLOURS,
    MAP_COLOURS,
    TILE,
    draw_colour_bar,
    draw_difference,
    draw_evidence,
    draw_grid,
    draw_overlay,
    in_grey,
)
from cifarpipe.results.maps import Explanations

EXPLAINED_WIDTH = 8  # tiles
OVERVIEW_COLUMNS = 5  # of an image and its map
OVERVIEW_ERRORS = 20
LARGE_TILE = 2.2  # side of a single explained image


def draw_explanations(
    images: NDArray[np.uint8],
    rows: pd.DataFrame,
    explanations: Explanations,
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Draw each image next to its maps: of the predicted and the true class, and their difference.

    The maps of an image share one scale, from 0 to the strongest evidence in either of them; the
    difference has a scale of its own, with 0 in the centre. The image is drawn in grey under the
    map, so that colour always means evidence. A map without evidence for its class says so. If all
    predictions are correct, or the method is class-agnostic, there is one map.

    Args:
        images: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        explanations: Of these images, in the same order.
        opacity: Of a map's strongest point, 0 to 1.
        title: Of the figure.
    """
    predicted, true = explanations.predicted, explanations.true
    class_specific = explanations.class_specific
    compared = true if class_specific and (rows.predicted != rows.true).any() else None
    tiles = 2 if compared is None else 4
    columns = max(1, min(EXPLAINED_WIDTH // tiles, len(rows)))
    means = "evidence for the class" if class_specific else "importance, for any class"
    key = [f"Colour: {means}, in a grid of {predicted.shape[1]} × "
           f"{predicted.shape[2]}."] * bool(len(rows))  # fmt: skip
    if compared is not None:
        key[0] += " The maps of the two classes share one scale."
        key.append(
            "Difference: purple is evidence for the predicted class, orange for the true one."
        )
    heading = "\n".join([title, *key])
    figure, axes, places = lay_out(len(rows), columns, tiles, TILE, heading)
    if len(rows):
        draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    if compared is not None:
        draw_colour_bar(figure, CONTRAST_COLOURS, ["true", "predicted"], 1)
    for number, (row, (x, y)) in enumerate(zip(rows.to_dict("records"), places, strict=True)):
        lefts = [x + column * (TILE + GAP / 2) for column in range(tiles)]
        image = images[number]
        place(axes, image, x, y, TILE)
        caption(axes, x, y, f"#{row['index']}\ntrue: {short(row['true'])}")
        top = max(predicted[number].max(), 1e-30)
        if compared is not None:
            top = max(compared[number].max(), top)
        draw_evidence(axes, image, predicted[number] / top, lefts[1], y, opacity)
        text = f"predicted:\n{short(row['predicted'])} ({row['confidence']:.2f})"
        caption(axes, lefts[1], y, text if class_specific else f"any class; {text}")
        if compared is not None:
            draw_evidence(axes, image, compared[number] / top, lefts[2], y, opacity)
            caption(
                axes, lefts[2], y, f"true:\n{short(row['true'])} ({row['true_probability']:.2f})"
            )
            draw_difference(axes, image, predicted[number] - compared[number], lefts[3], y, opacity)
            caption(axes, lefts[3], y, "predicted − true")
    return figure


def draw_overview(
    images: NDArray[np.uint8],
    rows: pd.DataFrame,
    explanations: Explanations,
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Draw errors of all classes and a row of correct images, each beside its map.

    A map is of the predicted class, and drawn as by `draw_explanations` but on a scale of its own.

    Args:
        images: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order; any of them may be errors.
        explanations: Of these images, in the same order.
        opacity: Of a map's strongest point, 0 to 1.
        title: Of the figure.
    """
    is_error = (rows.predicted != rows.true).to_numpy()
    errors = _spread(np.flatnonzero(is_error), OVERVIEW_ERRORS)
    correct = _spread(np.flatnonzero(~is_error), OVERVIEW_COLUMNS)
    first_correct = -(-len(errors) // OVERVIEW_COLUMNS) * OVERVIEW_COLUMNS
    heading = f"{title}\nErrors" + ("; last row: correct images." if len(correct) else ".")
    count = first_correct + len(correct)
    figure, axes, places = lay_out(count, OVERVIEW_COLUMNS, 2, TILE, heading)
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    tops = explanations.predicted.max(axis=(1, 2)).clip(1e-30)
    table = rows.to_dict("records")
    for number, (x, y) in [
        *zip(errors, places, strict=False),
        *zip(correct, places[first_correct:], strict=True),
    ]:
        row = table[number]
        place(axes, images[number], x, y, TILE)
        caption(axes, x, y, f"#{row['index']}\ntrue: {short(row['true'])}")
        right = x + TILE + GAP / 2
        strength = explanations.predicted[number] / tops[number]
        draw_evidence(axes, images[number], strength, right, y, opacity)
        caption(
            axes, right, y, f"→ predicted:\n{short(row['predicted'])} ({row['confidence']:.2f})"
        )
    return figure


def draw_before_and_after(
    images: NDArray[np.uint8],
    before: tuple[str, pd.DataFrame, Explanations],
    after: tuple[str, pd.DataFrame, Explanations],
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Draw images next to the maps of the classes predicted for them at two times.

    Each map has a scale of its own, since values of different networks can't be compared.

    Args:
        images: `[N, H, W, 3]`.
        before: A name; rows of the predictions table and explanations of these images, in the same
            order.
        after: Likewise.
        opacity: Of a map's strongest point, 0 to 1.
        title: Of the figure.
    """
    columns = max(1, min(2, len(images)))
    heading = f"{title}\nColour: evidence for the predicted class."
    figure, axes, places = lay_out(len(images), columns, 3, TILE, heading)
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    for number, (x, y) in enumerate(places):
        place(axes, images[number], x, y, TILE)
        for left, (name, rows, explanations) in zip((1, 2), (before, after), strict=True):
            row, strength = rows.iloc[number], explanations.predicted[number]
            where = x + left * (TILE + GAP / 2)
            draw_evidence(
                axes, images[number], strength / max(strength.max(), 1e-30), where, y, opacity
            )
            text = f"{short(name)}:\n{short(row['predicted'])} ({row['confidence']:.2f})"
            caption(axes, where, y, text)
        caption(axes, x, y, f"#{row['index']}\ntrue: {short(row['true'])}")
    return figure


def _spread(numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the numbers, evenly spread: the rows are sorted by class."""
    count = min(most, len(numbers))
    return numbers[np.arange(count) * len(numbers) // max(count, 1)]


def draw_predictions(
    image: NDArray[np.uint8],
    name: str,
    classes: Sequence[str],
    probabilities: NDArray[np.float64],
    maps: NDArray[np.float32],
    *,
    opacity: float,
    title: str,
) -> Figure:
    """Draw one image next to the maps of its most probable classes, and the first two's difference.

    All maps share one scale, from 0 to the strongest evidence in any of them. Lines separate the
    cells of the maps' own grid. A single map means a class-agnostic method.

    Args:
        image: `[H, W, 3]`, as the network sees it.
        name: Of its file.
        classes: The most probable first; at least as many as maps.
        probabilities: Of these classes.
        maps: `[N, h, w]` raw.
        opacity: Of a map's strongest point, 0 to 1.
        title: Of the figure.
    """
    count, (rows, columns) = len(maps), maps.shape[1:]
    contrasted = count > 1
    key = f"Colour: importance, for any class; the map's own grid is {rows} × {columns}."
    if contrasted:
        key = (
            f"Colour: evidence for the class, on one scale for all maps; their grid is {rows} × "
            f"{columns}.\nRight: difference of the first two maps, on its own scale; purple is "
            f"evidence for the first class, orange for the second."
        )
    tiles = 1 + count + contrasted
    figure, axes, ((x, y),) = lay_out(1, 1, tiles, LARGE_TILE, f"{title}\n{key}")
    lefts = [x + tile * (LARGE_TILE + GAP / 2) for tile in range(tiles)]
    place(axes, image, x, y, LARGE_TILE)
    size = f"{image.shape[1]} × {image.shape[0]}"
    caption(axes, x, y, f"{short(name)}\nas the network sees it: {size}")
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    top = max(maps.max(), 1e-30)
    for number, left in enumerate(lefts[1 : count + 1]):
        draw_evidence(axes, image, maps[number] / top, left, y, opacity, LARGE_TILE)
        text = f"{number + 1}. {short(classes[number])}\nprobability {probabilities[number]:.4f}"
        caption(axes, left, y, text if contrasted else "any class")
    if contrasted:
        draw_colour_bar(figure, CONTRAST_COLOURS, ["second", "first"], 1)
        difference = maps[0] - maps[1]
        strength = difference / max(np.abs(difference).max(), 1e-30)
        # Even opacity: both ends of these colours would be lost on a dark image.
        even = np.full_like(strength, opacity)
        where = (lefts[-1], y, LARGE_TILE)
        draw_overlay(axes, in_grey(image), strength, even, CONTRAST_COLOURS, (-1, 1), *where)
        caption(axes, lefts[-1], y, f"{short(classes[0])} −\n{short(classes[1])}")
    for left in lefts[1:]:
        draw_grid(axes, rows, columns, left, y, LARGE_TILE)
    return figure
