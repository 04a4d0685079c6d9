"""Maps over the images they explain."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.figures.layout import caption, hundredths, lay_out, place, short
from cifarpipe.figures.overlays import (
    CONTRAST_COLOURS,
    MAP_COLOURS,
    TILE,
    draw_colour_bar,
    draw_difference,
    draw_evidence,
    draw_grid,
    scaled,
)
from cifarpipe.results.maps import Explanations

EXPLAINED_WIDTH = 8  # tiles
OVERVIEW_COLUMNS = 5  # of an image and its map
OVERVIEW_ERRORS = 20
# What colour means, by a method that is class-specific, and by one that is class-agnostic.
EVIDENCE = "evidence for the class"
IMPORTANCE = "importance, for any class"
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
    means = EVIDENCE if class_specific else IMPORTANCE
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
    for number, (row, first) in enumerate(zip(rows.to_dict("records"), places, strict=True)):
        image = images[number]
        place(axes, image, first)
        caption(axes, first, f"#{row['index']}\ntrue: {short(row['true'])}")
        top = predicted[number].max()
        if compared is not None:
            top = max(compared[number].max(), top)
        square = first.right()
        draw_evidence(axes, image, scaled(predicted[number], top), square, opacity)
        text = f"predicted:\n{short(row['predicted'])} ({hundredths(row['confidence'])})"
        caption(axes, square, text if class_specific else f"any class; {text}")
        if compared is not None:
            square = first.right(2)
            draw_evidence(axes, image, scaled(compared[number], top), square, opacity)
            text = f"true:\n{short(row['true'])} ({hundredths(row['true_probability'])})"
            caption(axes, square, text)
            square = first.right(3)
            draw_difference(axes, image, predicted[number] - compared[number], square, opacity)
            caption(axes, square, "predicted − true")
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

    A map is of the predicted class, if the method is class-specific, and drawn as by
    `draw_explanations` but on a scale of its own.

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
    rest = "; last row: correct images." if len(correct) else "."
    heading = f"{title}\nColour: {_meaning_of_colour(explanations)}. Errors{rest}"
    count = first_correct + len(correct)
    figure, axes, places = lay_out(count, OVERVIEW_COLUMNS, 2, TILE, heading)
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    table = rows.to_dict("records")
    for number, square in [
        *zip(errors, places, strict=False),
        *zip(correct, places[first_correct:], strict=True),
    ]:
        row, evidence = table[number], explanations.predicted[number]
        place(axes, images[number], square)
        caption(axes, square, f"#{row['index']}\ntrue: {short(row['true'])}")
        draw_evidence(
            axes, images[number], scaled(evidence, evidence.max()), square.right(), opacity
        )
        text = f"→ predicted:\n{short(row['predicted'])} ({hundredths(row['confidence'])})"
        caption(axes, square.right(), text)
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
    meanings = [_meaning_of_colour(explanations) for _, _, explanations in (before, after)]
    if meanings[0] == meanings[1]:
        heading = f"{title}\nColour: {meanings[0]}."
    else:
        both = zip((before[0], after[0]), meanings, strict=True)
        heading = f"{title}\nColour: {'; '.join(f'{name}: {what}' for name, what in both)}."
    figure, axes, places = lay_out(len(images), columns, 3, TILE, heading)
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    for number, first in enumerate(places):
        place(axes, images[number], first)
        for column, (name, rows, explanations) in zip((1, 2), (before, after), strict=True):
            row, evidence = rows.iloc[number], explanations.predicted[number]
            square = first.right(column)
            draw_evidence(axes, images[number], scaled(evidence, evidence.max()), square, opacity)
            text = f"{short(name)}:\n{short(row['predicted'])} ({hundredths(row['confidence'])})"
            caption(axes, square, text)
        caption(axes, first, f"#{row['index']}\ntrue: {short(row['true'])}")
    return figure


def _meaning_of_colour(explanations: Explanations) -> str:
    """Say what colour means in the maps of the predicted classes."""
    return "evidence for the predicted class" if explanations.class_specific else IMPORTANCE


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
    class_specific: bool,
    opacity: float,
    title: str,
) -> Figure:
    """Draw one image next to the maps of its most probable classes, and the first two's difference.

    All maps share one scale, from 0 to the strongest evidence in any of them. Lines separate the
    cells of the maps' own grid.

    Args:
        image: `[H, W, 3]`, as the network sees it.
        name: Of its file.
        classes: The most probable first; at least as many as maps.
        probabilities: Of these classes.
        maps: `[N, h, w]` raw.
        class_specific: Whether each map is that of its class; otherwise there is one, for any.
        opacity: Of a map's strongest point, 0 to 1.
        title: Of the figure.
    """
    count, (rows, columns) = len(maps), maps.shape[1:]
    contrasted = count > 1
    means = EVIDENCE if class_specific else IMPORTANCE
    key = f"Colour: {means}; the map's own grid is {rows} × {columns}."
    if contrasted:
        key = (
            f"Colour: {means}, on one scale for all maps; their grid is {rows} × {columns}.\n"
            f"Right: difference of the first two maps, on its own scale; purple is "
            f"evidence for the first class, orange for the second."
        )
    tiles = 1 + count + contrasted
    figure, axes, (first,) = lay_out(1, 1, tiles, LARGE_TILE, f"{title}\n{key}")
    squares = [first.right(tile) for tile in range(tiles)]
    place(axes, image, first)
    size = f"{image.shape[1]} × {image.shape[0]}"
    caption(axes, first, f"{short(name)}\nas the network sees it: {size}")
    draw_colour_bar(figure, MAP_COLOURS, ["none", "most"], 0)
    for number, square in enumerate(squares[1 : count + 1]):
        draw_evidence(axes, image, scaled(maps[number], float(maps.max())), square, opacity)
        text = f"{number + 1}. {short(classes[number])}\nprobability {probabilities[number]:.4f}"
        caption(axes, square, text if class_specific else "any class")
    if contrasted:
        draw_colour_bar(figure, CONTRAST_COLOURS, ["second", "first"], 1)
        # Even opacity: both ends of these colours would be lost on a dark image.
        draw_difference(axes, image, maps[0] - maps[1], squares[-1], opacity, even=True)
        caption(axes, squares[-1], f"{short(classes[0])} −\n{short(classes[1])}")
    for square in squares[1:]:
        draw_grid(axes, rows, columns, square)
    return figure
