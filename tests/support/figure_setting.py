"""Small pictures and tables to draw, and how a drawing is looked at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cifarpipe.figures.sheets import save_figure

NASTY = ["$\\frac{", "<script>", "a_b^c", "a name that is too long to stand above a picture"]


def decode(figure: Figure, folder: Path) -> np.ndarray:
    """Return the saved picture's pixels `[H, W, 3]`."""
    save_figure(figure, folder / "figure.png")
    with Image.open(folder / "figure.png") as picture:
        assert picture.format == "PNG"
        return np.array(picture.convert("RGB"))


def places(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where a colour stands exactly: `[n, 2]` rows and columns."""
    return np.argwhere((pixels == colour).all(axis=2))


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """Return an 8 × 8 picture of each colour."""
    return np.array([np.full((8, 8, 3), colour) for colour in colours], np.uint8)


def make_rows(count: int, classes: list[str] = NASTY) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": np.arange(count) * 11,
            "file": "",
            "true": [classes[i % len(classes)] for i in range(count)],
            "predicted": [classes[(i + 1) % len(classes)] for i in range(count)],
            "confidence": np.linspace(0.5, 0.9, count),
            "true_probability": np.linspace(0.3, 0.05, count),
        }
    )


def make_pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def assert_equal_bytes(draw: Callable[[], Figure], folder: Path) -> None:
    """Draw twice: the files must be the same, with nothing of the day or of matplotlib in them."""
    for name in ("first", "again"):
        save_figure(draw(), folder / name / "figure.png")
    first, again = ((folder / name / "figure.png").read_bytes() for name in ("first", "again"))
    assert first == again
    assert b"Software" not in first  # matplotlib's version
    assert b"tIME" not in first
