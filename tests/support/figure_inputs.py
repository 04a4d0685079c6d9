"""Small images and tables to draw, and helpers that read a figure's pixels and texts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cifarpipe.figures.layout import save_figure

ODD_CLASSES = [
    "$\\frac{", "<script>", "a_b^c", "a name that is too long to stand above an image",
]  # fmt: skip


def decode(figure: Figure, folder: Path) -> np.ndarray:
    """Save a figure; return its pixels `[H, W, 3]`."""
    save_figure(figure, folder / "figure.png")
    with Image.open(folder / "figure.png") as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def places(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return rows and columns `[n, 2]` of the pixels with exactly this colour."""
    return np.argwhere((pixels == colour).all(axis=2))


def close_to(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return rows and columns `[n, 2]` of the pixels with about this colour."""
    return np.argwhere((np.abs(pixels - colour) <= 2).all(axis=2))


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """Return an 8 × 8 image of each colour."""
    return np.array([np.full((8, 8, 3), colour) for colour in colours], np.uint8)


def make_rows(count: int, classes: list[str] = ODD_CLASSES) -> pd.DataFrame:
    """Return rows of a predictions table, all of them errors."""
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


def make_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def assert_equal_bytes(draw: Callable[[], Figure], folder: Path) -> None:
    """Draw twice: the files must be equal, without a date or matplotlib's version."""
    for name in ("first", "second"):
        save_figure(draw(), folder / name / "figure.png")
    first, second = ((folder / name / "figure.png").read_bytes() for name in ("first", "second"))
    assert first == second
    assert b"Software" not in first  # matplotlib's version
    assert b"tIME" not in first
