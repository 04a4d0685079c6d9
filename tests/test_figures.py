"""Samples, galleries and curves: original pixels, in order, and the same bytes twice."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cifarpipe.figures.galleries import draw_curves, draw_gallery, draw_samples
from cifarpipe.figures.maps import draw_explanations
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


def gallery(count: int = 7) -> Figure:
    return draw_gallery(make_pictures(count), make_rows(count), "a $title$ of <b>")


def make_history(epochs: int = 3) -> pd.DataFrame:
    rising = np.linspace(0.1, 0.9, epochs)
    return pd.DataFrame(
        {
            "epoch": np.arange(1, epochs + 1),
            "train_acc": rising,
            "val_acc": rising / 2,
            "train_loss": 2 - rising,
            "val_loss": 3 - rising,
        }
    )


def curves() -> Figure:
    before = pd.DataFrame({"epoch": [1, 2], "train_acc": [0.1, 0.2], "val_acc": [0.3, 0.4]})
    return draw_curves({"vit": make_history(), "cnn": make_history(5)}, {"cnn": before})


def samples() -> Figure:
    return draw_samples(make_pictures(30), np.arange(30) % 4, NASTY)


@pytest.mark.parametrize("draw", [gallery, curves, samples])
def test_equal_content_gives_equal_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    assert_equal_bytes(draw, tmp_path)


def test_original_pixels_stand_in_the_gallery(tmp_path: Path) -> None:
    """64 pixels of as many colours: each is a square of that very colour, in its own place."""
    colours = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    picture = np.stack([colours + 5, 255 - colours, colours // 2 + 1], axis=2)
    pixels = decode(draw_gallery(picture[None], make_rows(1), "title"), tmp_path)
    middles = np.empty((8, 8, 2))
    for row in range(8):
        for column in range(8):
            found = places(pixels, tuple(picture[row, column]))
            height, width = np.ptp(found, axis=0) + 1
            assert min(height, width) >= 22  # enlarged about 24 times
            assert len(found) == height * width  # a full square: nothing interpolated into it
            middles[row, column] = found.mean(axis=0)
    assert (np.diff(middles[..., 0], axis=0) > 0).all()
    assert (np.diff(middles[..., 1], axis=1) > 0).all()


def test_a_gallery_stands_in_reading_order(tmp_path: Path) -> None:
    colours = [(200, 10, 10 * i) for i in range(7)]
    pixels = decode(draw_gallery(plain(*colours), make_rows(7), "title"), tmp_path)
    tops = [places(pixels, colour).min(axis=0) for colour in colours]
    assert len({top for top, _ in tops[:5]}) == len({top for top, _ in tops[5:]}) == 1
    assert tops[5][0] > tops[0][0]
    lefts = [left for _, left in tops]
    assert lefts[:5] == sorted(set(lefts[:5]))
    assert lefts[5:] == lefts[:2]


def test_captions_say_what_it_is_and_what_it_was_taken_for() -> None:
    rows = make_rows(2, ["cat", "dog"])
    assert texts(draw_gallery(make_pictures(2), rows, "my title")) == [
        "my title",
        "#0  true: cat\n→ predicted: dog (0.50)",
        "#11  true: dog\n→ predicted: cat (0.90)",
    ]


def test_long_names_are_cut_and_signs_are_no_formulas(tmp_path: Path) -> None:
    figure = gallery(4)
    decode(figure, tmp_path)
    shown = "\n".join(texts(figure))
    assert "$\\frac{" in shown
    assert "true: a name that is to…" in shown
    assert max(len(name) for name in re.findall(r"true: (.*)", shown)) == 18


def test_pictures_and_rows_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_gallery(make_pictures(3), make_rows(2), "title")


def test_empty_tables_say_so(tmp_path: Path) -> None:
    none = make_pictures(0), make_rows(0)
    maps = np.empty((0, 1, 1), np.float32)
    for figure in (
        draw_gallery(*none, "title"),
        draw_explanations(*none, maps, maps, opacity=0.5, title="title"),
    ):
        assert texts(figure)[-1] == "There are none."
        assert decode(figure, tmp_path).shape[1] >= 600


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    figure = draw_gallery(make_pictures(1), make_rows(1, ["猫", "犬"]), "title")
    assert decode(figure, tmp_path).std() > 0  # and every warning is an error here


def test_samples_are_the_first_of_each_class(tmp_path: Path) -> None:
    colours = [(9, 10 * i, 10 * (i % 2)) for i in range(20)]
    pixels = decode(draw_samples(plain(*colours), np.arange(20) % 2, ["a", "b"]), tmp_path)
    shown = [len(places(pixels, colour)) > 60**2 for colour in colours]
    assert shown == [True] * 16 + [False] * 4
    tops = [places(pixels, colour)[:, 0].min() for colour in colours[:16]]
    assert len(set(tops[::2])) == len(set(tops[1::2])) == 1
    assert tops[0] < tops[1]


def test_a_class_without_images_has_an_empty_row(tmp_path: Path) -> None:
    figure = draw_samples(plain((1, 2, 3)), np.array([1]), ["none", "one"])
    assert texts(figure) == ["none", "one"]
    assert len(places(decode(figure, tmp_path), (1, 2, 3))) > 60**2


def test_curves_of_all_models_and_of_the_runs_before() -> None:
    panels = curves().axes
    assert [len(panel.lines) for panel in panels] == [3, 3, 2, 2]  # losses before are not known
    vit, cnn, before = panels[1].lines
    assert vit.get_ydata().tolist() == make_history().val_acc.tolist()
    assert cnn.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert before.get_ydata().tolist() == [0.3, 0.4]
    assert before.get_linestyle() == "--"
    assert cnn.get_linestyle() == "-"
    assert before.get_color() == cnn.get_color() != vit.get_color()
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["vit", "cnn"]


def test_a_single_epoch_is_a_dot_and_many_models_have_colours_of_their_own() -> None:
    history = make_history()
    panel = draw_curves({"short": history[:1], "long": history}, {}).axes[0]
    assert [line.get_marker() for line in panel.lines] == ["o", "None"]
    panel = draw_curves({f"m{i}": history for i in range(15)}, {}).axes[0]
    assert len({line.get_color() for line in panel.lines}) == 15


def test_a_history_without_validation_is_drawn(tmp_path: Path) -> None:
    history = make_history().assign(val_acc=np.nan, val_loss=np.nan)
    picture = decode(draw_curves({"vit": history}, {}), tmp_path)
    assert picture.min() < picture.max()
