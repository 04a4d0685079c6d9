"""The layout of figures: positions in inches, short names, and saved pixels."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from cifarpipe.figures.layout import (
    BAR,
    DPI,
    LONGEST_NAME,
    MIN_WIDTH,
    Square,
    canvas,
    caption,
    hundredths,
    lay_out,
    place,
    save_figure,
    short,
)
from tests.support.figure_inputs import decode, places, plain, texts


def test_canvas_is_measured_in_inches(tmp_path: Path) -> None:
    figure, axes = canvas(4, 3)
    place(axes, plain((200, 10, 30))[0], Square(1, 0.5, 2))
    pixels = decode(figure, tmp_path)
    assert pixels.shape[:2] == (3 * DPI, 4 * DPI)
    found = places(pixels, (200, 10, 30))
    np.testing.assert_allclose(found.min(axis=0), [0.5 * DPI, 1 * DPI], atol=1)
    np.testing.assert_allclose(found.max(axis=0), [2.5 * DPI, 3 * DPI], atol=1)


def test_tiles_are_placed_row_by_row() -> None:
    figure, _, found = lay_out(5, columns=3, images=1, side=2.5, title="one\ntwo")
    lefts, tops, sides = zip(*found, strict=True)
    assert set(sides) == {2.5}
    assert lefts[:3] == tuple(sorted(set(lefts)))
    assert lefts[3:] == lefts[:2]
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4]
    assert all(width >= 2.5 for width in np.diff(lefts[:3]))  # images do not overlap
    assert tops[3] - tops[0] >= 2.5
    assert texts(figure) == ["one\ntwo"]


def test_colour_bars_get_space_next_to_maps() -> None:
    single, several = (
        lay_out(1, columns=1, images=images, side=9.0, title="")[0].get_size_inches()[0]
        for images in (1, 2)
    )
    assert several - single >= 9.0 + BAR


def test_empty_layout_keeps_space_for_the_title() -> None:
    figure, _, found = lay_out(0, columns=1, images=1, side=2.0, title="title")
    assert found == []
    assert texts(figure) == ["title", "None."]
    assert figure.get_size_inches()[0] == MIN_WIDTH


def test_captions_show_dollar_signs(tmp_path: Path) -> None:
    figure, axes = canvas(3, 1)
    caption(axes, Square(0.1, 0.9, 1), "$\\frac{")
    assert decode(figure, tmp_path).min() < 128  # drawn, not parsed as a formula
    assert mpl.rcParams["text.parse_math"] is False


def test_long_names_are_shortened() -> None:
    assert short("a" * LONGEST_NAME) == "a" * LONGEST_NAME
    assert short("a" * (LONGEST_NAME + 1)) == "a" * (LONGEST_NAME - 1) + "…"


def test_missing_glyphs_are_no_warning(tmp_path: Path) -> None:
    figure, axes = canvas(3, 1)
    caption(axes, Square(0.1, 0.9, 1), "猫 → 犬")
    save_figure(figure, tmp_path / "new" / "figure.png")  # every warning is an error in tests
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.745028, "0.75"), (0.74494, "0.74"), (0.125, "0.13"), (0.99996, "1.00"), (0.0, "0.00")],
)
def test_probabilities_are_rounded_to_hundredths(probability: float, expected: str) -> None:
    """Of ten-thousandths, half up: 0.745028 is 0.7450, hence 0.75."""
    assert hundredths(probability) == expected
