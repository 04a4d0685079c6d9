"""One map over its image in grey, and the key to its colours."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.figures.layout import BAR, GAP, place

TILE = 1.45  # side of an explained image, inches
# Readable without full colour vision: one by lightness, the other by blue against yellow.
MAP_COLOURS = "inferno"
CONTRAST_COLOURS = "PuOr"


def draw_colour_bar(figure: Figure, colours: str, ends: list[str], number: int) -> None:
    """Draw a colour bar at the right edge, the first one at the top and the next below it."""
    width, height = figure.get_size_inches()
    tall = min(TILE, (height - 0.2) / 2) - 2 * GAP
    bottom = height - (number + 1) * (tall + 3 * GAP)
    where = ((width - BAR + 2 * GAP) / width, bottom / height, GAP / width, tall / height)
    bar = figure.colorbar(ScalarMappable(cmap=colours), cax=figure.add_axes(where), ticks=[0, 1])
    bar.ax.set_yticklabels(ends, size=7)


def draw_evidence(
    axes: Axes,
    image: NDArray[np.uint8],
    strength: NDArray[np.float32],
    x: float,
    y: float,
    opacity: float,
    side: float = TILE,
) -> None:
    """Draw a map, at most 1, over its image in grey."""
    grey = in_grey(image)
    if strength.max() <= 0:
        place(axes, grey // 2, x, y, side)
        axes.text(
            x + side / 2, y + side / 2, "no positive\nevidence", color="white", size=8,
            ha="center", va="center",
        )  # fmt: skip
        return
    strength = np.clip(strength, 0, 1)
    draw_overlay(axes, grey, strength, opacity * strength, MAP_COLOURS, (0, 1), x, y, side)


def draw_difference(
    axes: Axes,
    image: NDArray[np.uint8],
    difference: NDArray[np.float32],
    x: float,
    y: float,
    opacity: float,
) -> None:
    """Draw a signed map over its image in grey, its largest absolute value in full colour."""
    strength = difference / max(np.abs(difference).max(), 1e-30)
    shown = opacity * np.abs(strength)
    draw_overlay(axes, in_grey(image), strength, shown, CONTRAST_COLOURS, (-1, 1), x, y, TILE)


def draw_overlay(
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
    """Draw values in the colours of a palette, with an opacity for each, over an image in grey."""
    place(axes, grey, x, y, side)
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


def draw_grid(axes: Axes, rows: int, columns: int, x: float, y: float, side: float) -> None:
    """Separate a map's cells by fine lines."""
    style: dict[str, Any] = {"colors": "0.6", "linewidth": 0.5, "alpha": 0.4}
    axes.hlines(y + side * np.arange(1, rows) / rows, x, x + side, **style)
    axes.vlines(x + side * np.arange(1, columns) / columns, y, y + side, **style)


def in_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image `[H, W, 3]` without its colours."""
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
