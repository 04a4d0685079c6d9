"""Lay out figures of images in inches, and save them reproducibly."""

import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.store.outputs import atomic_path

DPI = 100
GAP = 0.1
CAPTION = 0.36  # space for two lines above an image, inches
LONGEST_NAME = 18
BAR = 0.95  # space for a colour bar, inches
MIN_WIDTH = 6.5  # for the title, inches

mpl.rcParams.update({"font.size": 9, "text.parse_math": False})  # a class name may contain a $


class Square(NamedTuple):
    """Where an image is drawn: its top left corner and its side, in inches."""

    x: float
    y: float
    side: float

    def right(self, images: int = 1) -> "Square":
        """Return the place of an image of this tile, so many to the right."""
        return self._replace(x=self.x + images * (self.side + GAP / 2))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top, as `imshow` takes them."""
        return self.x, self.x + self.side, self.y + self.side, self.y


def save_figure(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn instead
        figure.savefig(partial, dpi=dpi, metadata={"Software": None})


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure and axes over all of it, in inches from the top left."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return figure, axes


def lay_out(
    count: int, columns: int, images: int, side: float, title: str
) -> tuple[Figure, Axes, list[Square]]:
    """Lay out tiles in rows under a title, with space for colour bars.

    Args:
        count: Number of tiles.
        columns: Tiles per row.
        images: Images per tile.
        side: Of an image, in inches.
        title: May have several lines.

    Returns:
        The figure, its axes in inches, and the place of each tile's first image.
    """
    head = 0.15 + 0.22 * len(title.splitlines())
    wide = images * side + (images - 1) * GAP / 2 + GAP
    tall = side + CAPTION + GAP
    lines = max(1, -(-count // columns))
    width = max(columns * wide + GAP + (BAR if images > 1 else 0), MIN_WIDTH)
    height = head + lines * tall
    figure, axes = canvas(width, height)
    axes.text(GAP, 0.1, title, va="top", size=10)
    if not count:
        axes.text(GAP, head + 0.1, "None.", va="top")
    places = [
        Square(GAP + (i % columns) * wide, head + CAPTION + (i // columns) * tall, side)
        for i in range(count)
    ]
    return figure, axes, places


def place(axes: Axes, image: NDArray[np.uint8], square: Square) -> None:
    """Draw an image `[H, W, 3]`; each pixel is a square."""
    axes.imshow(image, extent=square.extent, interpolation="nearest", aspect="auto")


def caption(axes: Axes, square: Square, text: str) -> None:
    """Write up to two lines above an image."""
    axes.text(square.x, square.y - 0.05, text, va="bottom", size=7.5, linespacing=1.15)


def short(name: str) -> str:
    """Shorten a name that would overlap the next image."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def hundredths(probability: float) -> str:
    """Return a probability with two decimal places, rounded as in the report's page.

    The page has it in ten-thousandths, so that it is rounded twice.
    """
    return f"{(round(10_000 * probability) + 50) // 100 / 100:.2f}"
