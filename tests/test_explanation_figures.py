"""Maps drawn over images: one scale for maps that are compared, and colour only for evidence."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cifarpipe.explanations.methods import CLASS_AGNOSTIC
from cifarpipe.explanations.upsampling import upsample
from cifarpipe.figures.explanations import (
    draw_before_and_after,
    draw_explanations,
    draw_overview,
    draw_predictions,
)
from cifarpipe.figures.layout import DPI, GAP
from cifarpipe.figures.overlays import FINE, MAP_COLOURS, TILE
from cifarpipe.results.maps import Explanations
from tests.support.figure_inputs import (
    ODD_CLASSES,
    assert_equal_bytes,
    close_to,
    decode,
    make_images,
    make_rows,
    places,
    plain,
    texts,
)

GREY = 120
NO_EVIDENCE = "no positive\nevidence"


def colour(colours: str, position: float) -> np.ndarray:
    """Return a colour map's colour at 0 to 1, as bytes."""
    return np.array(mpl.colormaps[colours](position)[:3]) * 255


def explained(
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    rows: pd.DataFrame | None = None,
    images: np.ndarray | None = None,
    opacity: float = 0.6,
    method: str = "gradcam",
) -> Figure:
    """Draw maps `[N, h, w]`, by default over grey images with errors."""
    count = len(predicted)
    return draw_explanations(
        plain(*[(GREY, GREY, GREY)] * count) if images is None else images,
        make_rows(count) if rows is None else rows,
        Explanations(method, np.arange(count), predicted, true, method not in CLASS_AGNOSTIC),
        opacity=opacity,
        title="title",
    )


def random_explanations(count: int = 4) -> Figure:
    maps = np.random.default_rng(1).normal(size=(2, count, 8, 8)).astype(np.float32)
    maps[:, :1] -= 100  # the first has no evidence for either class
    return explained(maps[0], maps[1], images=make_images(count))


def predicted(
    maps: np.ndarray,
    image: np.ndarray | None = None,
    opacity: float = 0.6,
    *,
    class_specific: bool = True,
) -> Figure:
    """Draw the maps of an image's most probable classes."""
    return draw_predictions(
        make_images(1)[0] if image is None else image,
        "photo.png",
        ["cat", "dog", *ODD_CLASSES],
        np.array([0.7, 0.2, 0.05, 0.03, 0.01, 0.01]),
        maps,
        class_specific=class_specific,
        opacity=opacity,
        title="title",
    )


def random_predictions() -> Figure:
    return predicted(np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32))


def overview(errors: int, correct: int, method: str = "gradcam") -> Figure:
    """Draw errors and correct images of one colour each, half of them with evidence."""
    count = errors + correct
    rows = make_rows(count)
    rows.loc[errors:, "predicted"] = rows.true[errors:]
    maps = np.ones((count, 4, 4), np.float32)
    maps[1::2] = -1
    images = plain(*[(10 * number, 80, 200) for number in range(count)])
    explanations = Explanations(method, np.arange(count), maps, -maps, method not in CLASS_AGNOSTIC)
    return draw_overview(images, rows, explanations, opacity=0.5, title="title")


def random_overview() -> Figure:
    return overview(4, 2)


@pytest.mark.parametrize("draw", [random_explanations, random_predictions, random_overview])
def test_equal_maps_give_equal_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    assert_equal_bytes(draw, tmp_path)


# Maps of the predicted and the true class.


def test_both_maps_share_one_scale(tmp_path: Path) -> None:
    """Evidence of 2 and of 1 gives full colour and half of it."""
    maps = np.full((2, 1, 2, 2), 2.0, np.float32)
    maps[1] = 1.0
    pixels = decode(explained(maps[0], maps[1]), tmp_path)
    original = places(pixels, (GREY, GREY, GREY))
    assert len(original) >= 140**2
    lefts = [original[:, 1].min()]
    for strength in (1.0, 0.5):
        opacity = 0.6 * strength
        found = close_to(pixels, opacity * colour("inferno", strength) + (1 - opacity) * GREY)
        assert len(found) >= 130**2
        lefts.append(found[:, 1].min())
    assert lefts == sorted(lefts)  # image, predicted class, true class


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_map_without_evidence_says_so(level: float, tmp_path: Path) -> None:
    maps = np.full((2, 1, 2, 2), level, np.float32)
    maps[0] = 5.0
    figure = explained(maps[0], maps[1])
    assert texts(figure).count(NO_EVIDENCE) == 1
    pixels = decode(figure, tmp_path)
    assert len(places(pixels, (GREY // 2,) * 3)) > 100**2  # darkened, not coloured
    neither = explained(maps[1], maps[1])
    assert texts(neither).count(NO_EVIDENCE) == 2
    decode(neither, tmp_path)


def test_evidence_against_a_class_has_no_colour(tmp_path: Path) -> None:
    """The left half is evidence for the class, the right half against it."""
    maps = np.full((1, 8, 8), -1.0, np.float32)
    maps[:, :, :4] = 1.0
    pixels = decode(explained(maps, maps, opacity=1.0), tmp_path)
    assert len(close_to(pixels, colour("inferno", 1.0))) > 2 * 40 * 130
    unchanged = places(pixels, (GREY, GREY, GREY))
    assert len(unchanged) > 145**2 + 2 * 40 * 130  # the image and two right halves


def test_drawn_evidence_is_as_large_as_in_the_metrics(tmp_path: Path) -> None:
    """Signed values are upsampled, then clipped: next to -5, a cell of 1 is a small spot."""
    maps = np.full((1, 4, 4), -5.0, np.float32)
    maps[0, 1, 1] = 1.0
    figure = explained(maps, maps, rows=make_rows(1, ["cat", "dog"]).assign(predicted=["cat"]))
    pixels = decode(figure, tmp_path)
    unchanged = len(places(pixels, (GREY, GREY, GREY)))
    coloured = 1 - (unchanged - (TILE * DPI) ** 2) / (TILE * DPI) ** 2  # besides the image
    expected = (upsample(maps, 256) > 0).mean()
    assert expected == pytest.approx(1 / 150, rel=0.5)
    assert coloured == pytest.approx(expected, abs=0.015)


def test_drawn_maps_are_upsampled_as_for_the_metrics() -> None:
    """By another library, to another size: `[FINE, FINE]`."""
    values = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    figure = explained(values[None], values[None], opacity=1.0)
    drawn = next(
        image.get_array()
        for image in figure.axes[0].images
        if image.get_array().shape == (FINE, FINE)
    )
    expected = upsample(values[None], FINE)[0] / values.max()
    np.testing.assert_allclose(drawn, expected.clip(0, 1), atol=1e-5)


def test_difference_has_a_colour_for_each_class(tmp_path: Path) -> None:
    maps = np.ones((2, 1, 2, 3), np.float32)
    maps[0, :, :, 0] = 3.0  # the left third: evidence for the predicted class
    maps[1, :, :, 2] = 2.0  # the right third: half as much for the true class
    pixels = decode(explained(maps[0], maps[1], opacity=1.0), tmp_path)
    lefts = []
    for strength in (1.0, -0.5):
        full = colour("PuOr", (strength + 1) / 2)
        found = close_to(pixels, full * abs(strength) + GREY * (1 - abs(strength)))
        assert len(found) > 15 * 130
        lefts.append(np.median(found[:, 1]))
    assert lefts[0] < lefts[1]
    purple, orange = colour("PuOr", 1.0), colour("PuOr", 0.0)
    assert purple[2] > purple[1]
    assert orange[0] > orange[2]


def test_captions_name_classes_and_grid() -> None:
    maps = np.ones((1, 8, 9), np.float32)
    shown = texts(explained(maps, maps, rows=make_rows(1, ["cat", "dog"])))
    assert "evidence for the class, in a grid of 8 × 9" in shown[0]
    assert "share one scale" in shown[0]
    assert "purple is evidence for the predicted class, orange for the true one" in shown[0]
    assert shown[1:] == [
        "#0\ntrue: cat",
        "predicted:\ndog (0.50)",
        "true:\ncat (0.30)",
        "predicted − true",
    ]


def test_correct_predictions_have_one_map() -> None:
    rows = make_rows(2, ["cat", "dog"]).assign(predicted=["cat", "dog"])
    maps = np.ones((2, 8, 8), np.float32)
    shown = texts(explained(maps, maps, rows=rows))
    assert "Difference" not in shown[0]
    assert len([text for text in shown if text.startswith("predicted:")]) == 2
    assert not [text for text in shown if text.startswith(("true:", "predicted −"))]


def test_class_agnostic_map_names_no_class() -> None:
    maps = np.ones((1, 8, 9), np.float32)
    rows = make_rows(1, ["cat", "dog"])
    shown = texts(explained(maps, maps, rows=rows, method="attention_rollout"))
    assert "importance, for any class, in a grid of 8 × 9" in shown[0]
    assert "evidence" not in shown[0]
    assert shown[1:] == ["#0\ntrue: cat", "any class; predicted:\ndog (0.50)"]


def test_no_explanations_say_none(tmp_path: Path) -> None:
    maps = np.empty((0, 1, 1), np.float32)
    figure = explained(maps, maps, images=make_images(0))
    assert texts(figure) == ["title", "None."]
    assert decode(figure, tmp_path).shape[1] >= 600


# Maps of the most probable classes.


def test_all_classes_share_one_scale(tmp_path: Path) -> None:
    """Evidence of 3, 1.5 and 0, each in a lower left quarter of 4 × 4 cells."""
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, 2:, :2] = np.array([3.0, 1.5, 0.0])[:, None, None]
    original = (GREY + 10, GREY, GREY - 10)
    figure = predicted(maps, plain(original)[0], opacity=0.8)
    pixels = decode(figure, tmp_path).astype(int)
    top, left = places(pixels, original).min(axis=0)
    side, step = 220, 225  # 2.2 and 2.25 inches
    assert (pixels[top + 5 : top + side - 5, left + 5 : left + side - 5] == original).all()

    def outer_cell(tile: int) -> np.ndarray:
        return pixels[top + 190, left + tile * step + 40]

    for tile, strength in ((1, 1.0), (2, 0.5)):
        opacity = 0.8 * strength
        expected = opacity * colour("inferno", strength) + (1 - opacity) * GREY
        np.testing.assert_allclose(outer_cell(tile), expected, atol=2)
    np.testing.assert_allclose(outer_cell(4), 0.8 * colour("PuOr", 1.0) + 0.2 * GREY, atol=2)
    shown = texts(figure)
    assert shown.count(NO_EVIDENCE) == 1  # of the third class
    assert [text for text in shown[1:] if text != NO_EVIDENCE] == [
        "photo.png\nas the network sees it: 8 × 8",
        "1. cat\nprobability 0.7000",
        "2. dog\nprobability 0.2000",
        "3. $\\frac{\nprobability 0.0500",
        "cat −\ndog",
    ]
    assert "on one scale for all maps; their grid is 4 × 4" in shown[0]
    assert [bar.get_yticklabels()[1].get_text() for bar in figure.axes[1:]] == ["most", "first"]


def test_lines_separate_the_cells_of_maps() -> None:
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0, 0] = 1
    lines = predicted(maps, plain((0, 0, 0))[0]).axes[0].collections
    assert sorted(len(part.get_segments()) for part in lines) == [2, 2, 2, 3, 3, 3]


def test_no_evidence_is_said_for_every_class(tmp_path: Path) -> None:
    figure = predicted(np.full((3, 2, 2), -1, np.float32))
    assert texts(figure).count(NO_EVIDENCE) == 3
    decode(figure, tmp_path)


def test_map_of_the_only_class_is_class_specific() -> None:
    shown = texts(predicted(np.ones((1, 8, 8), np.float32)))
    assert shown[2] == "1. cat\nprobability 0.7000"
    assert "evidence for the class" in shown[0]


def test_class_agnostic_map_of_an_image_names_no_class() -> None:
    figure = predicted(np.ones((1, 8, 8), np.float32), class_specific=False)
    assert texts(figure)[1:] == ["photo.png\nas the network sees it: 32 × 32", "any class"]
    assert "importance, for any class" in texts(figure)[0]
    assert len(figure.axes) == 2  # one colour bar


def test_overview_shows_each_image_beside_its_map(tmp_path: Path) -> None:
    pixels = decode(overview(7, 3), tmp_path).astype(float)
    across = round((TILE + GAP / 2) * DPI)
    for number in range(10):
        image = places(pixels, (10 * number, 80, 200))
        assert len(image) == pytest.approx((TILE * DPI) ** 2, rel=0.05)
        y, x = np.median(image, axis=0).astype(int)
        grey = (10 * number + 80 + 200) // 3
        if number % 2:  # without evidence for the predicted class
            expected = np.full(3, grey // 2)
            y -= round(0.4 * TILE * DPI)  # above the words
        else:
            # All evidence is for the predicted class, and is the strongest.
            expected = 0.5 * colour(MAP_COLOURS, 1.0) + 0.5 * grey
        assert pixels[y, x + across] == pytest.approx(expected, abs=2)


def test_overview_ends_with_a_row_of_correct_images() -> None:
    drawn = overview(7, 3).axes[0].texts
    heights = {
        text.get_text().split("\n")[0]: text.get_position()[1]
        for text in drawn
        if text.get_text().startswith("#")
    }
    errors, correct = ([heights[f"#{11 * n}"] for n in part] for part in (range(7), range(7, 10)))
    assert len(set(errors)) == 2  # rows of five
    assert len(set(correct)) == 1
    assert correct[0] > max(errors)
    means = "title\nColour: evidence for the predicted class. "
    assert f"{means}Errors; last row: correct images." in texts(overview(7, 3))
    assert f"{means}Errors." in texts(overview(7, 0))
    agnostic = texts(overview(7, 0, method="eigencam"))
    assert "title\nColour: importance, for any class. Errors." in agnostic


def test_overview_of_many_images_is_spread_over_the_classes() -> None:
    shown = [text for text in texts(overview(25, 25)) if text.startswith("#")]
    indices = [int(text.split("\n")[0][1:]) // 11 for text in shown]
    assert indices == [i * 25 // 20 for i in range(20)] + [25 + 5 * i for i in range(5)]


@pytest.mark.parametrize(("errors", "correct"), [(0, 0), (0, 4), (4, 0), (1, 1)])
def test_overview_of_few_images(errors: int, correct: int) -> None:
    shown = [text for text in texts(overview(errors, correct)) if text.startswith("#")]
    assert len(shown) == errors + correct


def test_changed_images_are_shown_with_the_maps_of_both_times(tmp_path: Path) -> None:
    images = plain((200, 80, 20), (10, 80, 200))
    rows = make_rows(2), make_rows(2).assign(predicted=["now one", "now two"])
    maps = np.ones((2, 2, 4, 4), np.float32)
    maps[0, 1] = -1  # the second image had no evidence before
    before, after = (
        (name, table, Explanations("gradcam", np.arange(2), found, found, True))
        for name, table, found in zip(("main", "workspace"), rows, maps, strict=True)
    )
    figure = draw_before_and_after(images, before, after, opacity=0.5, title="title")
    captions = texts(figure)
    assert captions[0] == "title\nColour: evidence for the predicted class."
    assert f"main:\n{ODD_CLASSES[1]} (0.50)" in captions
    assert "workspace:\nnow two (0.90)" in captions
    assert captions.count(NO_EVIDENCE) == 1
    pixels = decode(figure, tmp_path).astype(float)
    across = round((TILE + GAP / 2) * DPI)
    for colours, evidence in (((200, 80, 20), (1, 1)), ((10, 80, 200), (0, 1))):
        y, x = np.median(places(pixels, colours), axis=0).astype(int)
        grey = sum(colours) // 3
        shown = 0.5 * colour(MAP_COLOURS, 1.0) + 0.5 * grey
        for side, strong in enumerate(evidence, start=1):
            found = pixels[y - 50, x + side * across]
            assert found == pytest.approx(shown if strong else np.full(3, grey // 2), abs=2)


def test_changed_images_of_another_method_say_what_each_map_shows() -> None:
    maps = np.ones((1, 4, 4), np.float32)

    def heading(*methods: str) -> str:
        before, after = (
            (
                name,
                make_rows(1),
                Explanations(method, np.arange(1), maps, maps, method not in CLASS_AGNOSTIC),
            )
            for name, method in zip(("main", "workspace"), methods, strict=True)
        )
        figure = draw_before_and_after(make_images(1), before, after, opacity=0.5, title="title")
        return texts(figure)[0]

    assert heading("eigencam", "eigencam") == "title\nColour: importance, for any class."
    assert heading("gradcam", "eigencam") == (
        "title\nColour: main: evidence for the predicted class; "
        "workspace: importance, for any class."
    )
