"""One map over its image in grey, and the key to its colours."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.figures.layout import BAR, GAP, Square, place

TILE = 1.45  # side of an explained image, inches
# Readable without full colour vision: one by lightness, the other by blue against yellow.
MAP_COLOURS = "inferno"
CONTRAST_COLOURS = "PuOr"
FINE = 256  # values of a drawn map along each side


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
    square: Square,
    opacity: float,
) -> None:
    """Draw a map, at most 1, over its image in grey; only what is positive."""
    grey = in_grey(image)
    if strength.max() <= 0:
        place(axes, grey // 2, square)
        x, y, side = square
        axes.text(
            x + side / 2, y + side / 2, "no positive\nevidence", color="white", size=8,
            ha="center", va="center",
        )  # fmt: skip
        return
    fine = np.clip(_upsample(strength), 0, 1)
    _draw_overlay(axes, grey, fine, opacity * fine, square, MAP_COLOURS, lowest=0)


def draw_difference(
    axes: Axes,
    image: NDArray[np.uint8],
    difference: NDArray[np.float32],
    square: Square,
    opacity: float,
    *,
    even: bool = False,
) -> None:
    """Draw a signed map over its image in grey, its largest absolute value in full colour.

    Args:
        axes: In inches.
        image: `[H, W, 3]`.
        difference: `[h, w]`.
        square: Where to draw it.
        opacity: Of the strongest point, 0 to 1.
        even: All points are as opaque as the strongest.
    """
    fine = _upsample(scaled(difference))
    share = np.ones_like(fine) if even else np.abs(fine)
    grey = in_grey(image)
    _draw_overlay(axes, grey, fine, opacity * share, square, CONTRAST_COLOURS, lowest=-1)


def scaled(values: NDArray[np.float32], most: float | None = None) -> NDArray[np.float32]:
    """Divide by `most`, at least 1e-30; by default the largest absolute value."""
    return values / max(np.abs(values).max() if most is None else most, 1e-30)


def _upsample(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Upsample a signed map to `[FINE, FINE]`, bilinear, as for the metrics and the report's page.

    If negative values were clipped first, positive ones would spread beyond their boundary.
    """
    large = Image.fromarray(strength.astype(np.float32))
    return np.array(large.resize((FINE, FINE), Image.Resampling.BILINEAR))


def _draw_overlay(
    axes: Axes,
    grey: NDArray[np.uint8],
    strength: NDArray[np.float32],
    opacity: NDArray[np.floating[Any]],
    square: Square,
    colours: str,
    *,
    lowest: float,
) -> None:
    """Draw values from `lowest` to 1, each with its opacity, over an image in grey."""
    place(axes, grey, square)
    axes.imshow(
        strength,
        cmap=colours,
        vmin=lowest,
        vmax=1,
        alpha=opacity,
        extent=square.extent,
        interpolation="nearest",
        aspect="auto",
    )


def draw_grid(axes: Axes, rows: int, columns: int, square: Square) -> None:
    """Separate a map's cells by fine lines."""
    style: dict[str, Any] = {"colors": "0.6", "linewidth": 0.5, "alpha": 0.4}
    x, y, side = square
    axes.hlines(y + side * np.arange(1, rows) / rows, x, x + side, **style)
    axes.vlines(x + side * np.arange(1, columns) / columns, y, y + side, **style)


def in_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image `[H, W, 3]` without its colours."""
    return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
