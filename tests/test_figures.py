"""Pictures: original pixels, in order, one scale for what is compared, and the same bytes twice."""

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifarpipe.figures import draw_curves, draw_gallery, draw_samples
from cifarpipe.map_figures import draw_answer, draw_explanations
from cifarpipe.sheets import save_figure

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


def gallery(count: int = 7) -> Figure:
    return draw_gallery(make_pictures(count), make_rows(count), "a $title$ of <b>")


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


@pytest.mark.parametrize("draw", [gallery, explanations, answered, curves, samples])
def test_equal_content_gives_equal_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    for name in ("first", "again"):
        save_figure(draw(), tmp_path / name / "figure.png")
    first, again = ((tmp_path / name / "figure.png").read_bytes() for name in ("first", "again"))
    assert first == again
    assert b"Software" not in first  # matplotlib's version
    assert b"tIME" not in first


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


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


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    decode(draw_gallery(make_pictures(1), make_rows(1, ["猫", "犬"]), "title"), tmp_path)


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


def test_a_history_without_validation_is_drawn(tmp_path: Path) -> None:
    history = make_history().assign(val_acc=np.nan, val_loss=np.nan)
    picture = decode(draw_curves({"vit": history}, {}), tmp_path)
    assert picture.min() < picture.max()
