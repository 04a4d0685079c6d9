"""Maps over pictures: one scale for what is compared, and colour for evidence alone."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from cifarpipe.figures.maps import draw_answer, draw_explanations
from tests.support.figure_setting import (
    NASTY,
    assert_equal_bytes,
    decode,
    make_pictures,
    make_rows,
    places,
    plain,
    texts,
)


def explanations(count: int = 4) -> Figure:
    maps = np.random.default_rng(1).normal(size=(2, count, 8, 8)).astype(np.float32)
    maps[:, :1] -= 100  # the first has no evidence for either class
    return draw_explanations(
        make_pictures(count), make_rows(count), maps[0], maps[1], opacity=0.6, title="a title"
    )


def drawn_answer(
    maps: np.ndarray, picture: np.ndarray | None = None, opacity: float = 0.6
) -> Figure:
    shown = make_pictures(1)[0] if picture is None else picture
    return draw_answer(
        shown, "photo.png", ["cat", "dog", *NASTY], np.array([0.7, 0.2, 0.05, 0.03, 0.01, 0.01]),
        maps, opacity=opacity, title="a title",
    )  # fmt: skip


def answered() -> Figure:
    return drawn_answer(np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("draw", [explanations, answered])
def test_equal_content_gives_equal_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    assert_equal_bytes(draw, tmp_path)


def test_the_two_maps_of_a_picture_share_one_scale(tmp_path: Path) -> None:
    """Evidence of 2 and of 1: full colour and half of it, not full colour twice."""
    maps = np.full((2, 1, 2, 2), 2.0, np.float32)
    maps[1] = 1.0
    grey = 120
    figure = draw_explanations(
        plain((grey, grey, grey)), make_rows(1), maps[0], maps[1], opacity=0.6, title="title"
    )
    pixels = decode(figure, tmp_path)
    original = places(pixels, (grey, grey, grey))
    assert len(original) >= 140**2
    lefts = [original[:, 1].min()]
    for strength in (1.0, 0.5):
        colour = np.array(mpl.colormaps["inferno"](strength)[:3]) * 255
        expected = colour * (0.6 * strength) + grey * (1 - 0.6 * strength)
        found = np.argwhere((np.abs(pixels - expected) <= 2).all(axis=2))
        assert len(found) >= 130**2
        lefts.append(found[:, 1].min())
    assert lefts == sorted(lefts)  # picture, predicted, true


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_map_without_evidence_says_so(level: float, tmp_path: Path) -> None:
    maps = np.full((2, 1, 2, 2), level, np.float32)
    maps[0] = 5.0
    figure = draw_explanations(
        plain((120, 120, 120)), make_rows(1), maps[0], maps[1], opacity=0.6, title="title"
    )
    assert texts(figure).count("no positive\nevidence") == 1
    pixels = decode(figure, tmp_path)
    assert len(places(pixels, (60, 60, 60))) > 100**2  # its tile is dimmed, not coloured
    # Evidence against both: nothing is divided by a maximum that is not there.
    both = draw_explanations(
        plain((120, 120, 120)), make_rows(1), maps[1], maps[1], opacity=0.6, title="title"
    )
    assert texts(both).count("no positive\nevidence") == 2
    decode(both, tmp_path)


def test_evidence_against_a_class_is_not_coloured(tmp_path: Path) -> None:
    """The left half speaks for the class, the right half against: only the left has colour."""
    maps = np.full((1, 8, 8), -1.0, np.float32)
    maps[:, :, :4] = 1.0
    figure = draw_explanations(
        plain((120, 120, 120)), make_rows(1), maps, maps, opacity=1.0, title="title"
    )
    pixels = decode(figure, tmp_path)
    bright = np.array(mpl.colormaps["inferno"](1.0)[:3]) * 255
    found = np.argwhere((np.abs(pixels - bright) <= 2).all(axis=2))
    assert len(found) > 2 * 40 * 130
    untouched = places(pixels, (120, 120, 120))
    assert len(untouched) > 145**2 + 2 * 40 * 130  # the picture itself and two right halves


def test_explanations_name_both_classes_their_probabilities_and_the_grid() -> None:
    rows = make_rows(1, ["cat", "dog"])
    maps = np.ones((1, 8, 9), np.float32)
    shown = texts(draw_explanations(make_pictures(1), rows, maps, maps, opacity=0.5, title="title"))
    assert "grid of 8 × 9" in shown[0]
    assert shown[1:] == [
        "#0\ntrue: cat", "predicted:\ndog (0.50)", "true:\ncat (0.30)", "predicted − true",
    ]  # fmt: skip


def test_correct_images_have_one_map() -> None:
    rows = make_rows(2, ["cat", "dog"]).assign(predicted=["cat", "dog"])
    maps = np.ones((2, 8, 8), np.float32)
    figure = draw_explanations(make_pictures(2), rows, maps, maps, opacity=0.5, title="title")
    shown = texts(figure)
    assert "Their difference" not in shown[0]
    assert len([text for text in shown if text.startswith("predicted:")]) == 2
    assert not [text for text in shown if text.startswith(("true:", "predicted −"))]


def test_maps_that_class_agnostic_are_not_said_to_be_of_one() -> None:
    rows = make_rows(1, ["cat", "dog"])
    maps = np.ones((1, 8, 9), np.float32)
    shown = texts(draw_explanations(make_pictures(1), rows, maps, None, opacity=0.5, title="title"))
    assert "what mattered, whatever the class, in a grid of 8 × 9" in shown[0]
    assert "evidence" not in shown[0]
    assert shown[1:] == ["#0\ntrue: cat", "any class; predicted:\ndog (0.50)"]


def test_the_difference_has_a_colour_for_either_class_and_none_where_they_agree(
    tmp_path: Path,
) -> None:
    maps = np.ones((2, 1, 2, 3), np.float32)
    maps[0, :, :, 0] = 3.0  # the left third speaks for the predicted class
    maps[1, :, :, 2] = 2.0  # the right third for the true one, half as much
    figure = draw_explanations(
        plain((120, 120, 120)), make_rows(1), maps[0], maps[1], opacity=1.0, title="title"
    )
    pixels = decode(figure, tmp_path)
    lefts = []
    for strength in (1.0, -0.5):
        colour = np.array(mpl.colormaps["PuOr"]((strength + 1) / 2)[:3]) * 255
        expected = colour * abs(strength) + 120 * (1 - abs(strength))
        found = np.argwhere((np.abs(pixels - expected) <= 2).all(axis=2))
        assert len(found) > 15 * 130
        lefts.append(np.median(found[:, 1]))
    assert lefts[0] < lefts[1]
    purple, orange = (mpl.colormaps["PuOr"](end) for end in (1.0, 0.0))
    assert purple[2] > purple[1]
    assert orange[0] > orange[2]


def test_an_answer_has_one_scale_for_all_classes_and_shows_what_parts_the_first_two(
    tmp_path: Path,
) -> None:
    """Evidence of 3, 1.5 and 0, each in a lower left quarter of 4 × 4 cells."""
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, 2:, :2] = np.array([3.0, 1.5, 0.0])[:, None, None]
    grey = 120
    colour = (grey + 10, grey, grey - 10)
    figure = drawn_answer(maps, plain(colour)[0], opacity=0.8)
    pixels = decode(figure, tmp_path).astype(int)
    original = places(pixels, colour)
    top, left = original.min(axis=0)
    side, step = 220, 225  # 2.2 and 2.25 inches
    assert (pixels[top + 5 : top + side - 5, left + 5 : left + side - 5] == colour).all()

    def found(tile: int) -> np.ndarray:
        return pixels[top + 190, left + tile * step + 40]  # within the outermost cell

    for tile, strength in ((1, 1.0), (2, 0.5)):
        colour = np.array(mpl.colormaps["inferno"](strength)[:3]) * 255
        expected = colour * (0.8 * strength) + grey * (1 - 0.8 * strength)
        np.testing.assert_allclose(found(tile), expected, atol=2)
    purple = np.array(mpl.colormaps["PuOr"](1.0)[:3]) * 255
    np.testing.assert_allclose(found(4), 0.8 * purple + 0.2 * grey, atol=2)
    shown = texts(figure)
    assert shown.count("no positive\nevidence") == 1  # of the third
    captions = [text for text in shown[1:] if "evidence" not in text]
    assert captions == [
        "photo.png\nas the network sees it: 8 × 8", "1. cat\nprobability 0.7000",
        "2. dog\nprobability 0.2000", "3. $\\frac{\nprobability 0.0500", "cat −\ndog",
    ]  # fmt: skip
    assert "one scale for all; the maps' own grid is 4 × 4" in shown[0]
    assert [bar.get_yticklabels()[1].get_text() for bar in figure.axes[1:]] == ["most", "first"]


def test_the_cells_of_an_answers_maps_are_parted_by_lines(tmp_path: Path) -> None:
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0, 0] = 1
    with_lines = drawn_answer(maps, plain((0, 0, 0))[0])
    lines = with_lines.axes[0].collections
    assert sorted(len(part.get_segments()) for part in lines) == [2, 2, 2, 3, 3, 3]


def test_an_answer_without_evidence_says_so_for_every_class(tmp_path: Path) -> None:
    figure = drawn_answer(np.full((3, 2, 2), -1, np.float32))
    assert texts(figure).count("no positive\nevidence") == 3
    decode(figure, tmp_path)


def test_a_map_of_no_class_stands_alone() -> None:
    figure = drawn_answer(np.ones((1, 8, 8), np.float32))
    assert texts(figure)[1:] == ["photo.png\nas the network sees it: 32 × 32", "any class"]
    assert "whatever the class" in texts(figure)[0]
    assert len(figure.axes) == 2  # one colour bar
