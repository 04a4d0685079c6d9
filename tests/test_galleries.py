"""Samples and galleries: original pixels in order, with captions."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from cifarpipe.figures.galleries import draw_gallery, draw_samples
from tests.support.figure_inputs import (
    ODD_CLASSES,
    assert_equal_bytes,
    decode,
    make_images,
    make_rows,
    places,
    plain,
    texts,
)


def gallery(count: int = 7) -> Figure:
    return draw_gallery(make_images(count), make_rows(count), "a $title$ of <b>")


def samples() -> Figure:
    return draw_samples(make_images(30), np.arange(30) % 4, ODD_CLASSES)


@pytest.mark.parametrize("draw", [gallery, samples])
def test_equal_images_give_equal_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    assert_equal_bytes(draw, tmp_path)


def test_gallery_shows_original_pixels(tmp_path: Path) -> None:
    """Each of 64 pixels in different colours is a square of its colour, in its own position."""
    colours = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    image = np.stack([colours + 5, 255 - colours, colours // 2 + 1], axis=2)
    pixels = decode(draw_gallery(image[None], make_rows(1), "title"), tmp_path)
    centres = np.empty((8, 8, 2))
    for row in range(8):
        for column in range(8):
            found = places(pixels, tuple(image[row, column]))
            height, width = np.ptp(found, axis=0) + 1
            assert min(height, width) >= 22  # enlarged about 24 times
            assert len(found) == height * width  # a full square, without interpolation
            centres[row, column] = found.mean(axis=0)
    assert (np.diff(centres[..., 0], axis=0) > 0).all()
    assert (np.diff(centres[..., 1], axis=1) > 0).all()


def test_gallery_is_in_reading_order(tmp_path: Path) -> None:
    colours = [(200, 10, 10 * i) for i in range(7)]
    pixels = decode(draw_gallery(plain(*colours), make_rows(7), "title"), tmp_path)
    tops, lefts = zip(*(places(pixels, colour).min(axis=0) for colour in colours), strict=True)
    assert len(set(tops[:5])) == len(set(tops[5:])) == 1
    assert tops[5] > tops[0]
    assert list(lefts[:5]) == sorted(set(lefts[:5]))
    assert lefts[5:] == lefts[:2]


def test_captions_name_true_and_predicted_class() -> None:
    rows = make_rows(2, ["cat", "dog"])
    assert texts(draw_gallery(make_images(2), rows, "my title")) == [
        "my title",
        "#0  true: cat\n→ predicted: dog (0.50)",
        "#11  true: dog\n→ predicted: cat (0.90)",
    ]


def test_odd_class_names_are_drawn(tmp_path: Path) -> None:
    figure = gallery(4)
    decode(figure, tmp_path)
    shown = "\n".join(texts(figure))
    assert "$\\frac{" in shown
    assert "true: a name that is to…" in shown
    assert max(len(name) for name in re.findall(r"true: (.*)", shown)) == 18


def test_unequal_numbers_of_images_and_rows_fail() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_gallery(make_images(3), make_rows(2), "title")


def test_empty_gallery_says_none(tmp_path: Path) -> None:
    figure = draw_gallery(make_images(0), make_rows(0), "title")
    assert texts(figure)[-1] == "None."
    assert decode(figure, tmp_path).shape[1] >= 600


def test_samples_are_the_first_of_each_class(tmp_path: Path) -> None:
    colours = [(9, 10 * i, 10 * (i % 2)) for i in range(20)]
    pixels = decode(draw_samples(plain(*colours), np.arange(20) % 2, ["a", "b"]), tmp_path)
    shown = [len(places(pixels, colour)) > 60**2 for colour in colours]
    assert shown == [True] * 16 + [False] * 4
    tops = [places(pixels, colour)[:, 0].min() for colour in colours[:16]]
    assert len(set(tops[::2])) == len(set(tops[1::2])) == 1
    assert tops[0] < tops[1]


def test_class_without_images_has_an_empty_row(tmp_path: Path) -> None:
    figure = draw_samples(plain((1, 2, 3)), np.array([1]), ["none", "one"])
    assert texts(figure) == ["none", "one"]
    assert len(places(decode(figure, tmp_path), (1, 2, 3))) > 60**2
