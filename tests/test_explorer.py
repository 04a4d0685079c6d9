"""The input of the page's script: all predictions, and images with their maps."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarpipe.report.explorer import STEPS, pack, rank_images
from cifarpipe.report.sprites import SPRITE_COLUMNS, max_images, sprite_columns
from cifarpipe.report.study import ModelResults
from cifarpipe.report.training_images import TrainingImages, choose_training_images
from tests.support.report_inputs import CLASSES, TRAIN, make_images, make_results, make_split

NO_IMAGES = np.empty(0, np.int64)


@pytest.fixture
def results(tmp_path: Path) -> list[ModelResults]:
    return [
        make_results(tmp_path, f"m{i}", accuracy=accuracy, seed=i)
        for i, accuracy in enumerate((0.9, 0.5))
    ]


def decode(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), kind)


def packed(results: list[ModelResults], shown: np.ndarray) -> dict:
    return pack(results, CLASSES, make_images(80), shown, training(), flags={}, opacity=0.6)


def training(shown: np.ndarray = NO_IMAGES) -> TrainingImages:
    return TrainingImages(make_split(TRAIN, len(CLASSES), step=3), shown)


def test_selected_images_rank_first_all_once(
    results: list[ModelResults],
) -> None:
    ranked = rank_images(results, NO_IMAGES)
    selected = {
        index // 2  # in these results an index is twice the position
        for model in results
        for rows in (model.misclassified, model.correct)
        for index in rows["index"]
    }
    assert set(ranked[: len(selected)]) == selected
    assert len(set(ranked.tolist())) == len(ranked) == 80
    errors = np.flatnonzero(~results[1].is_correct)
    later = ranked[len(selected) :].tolist()
    # Confusions take turns: the next errors of a model include all four of them.
    found = [position for position in later if position in set(errors)][:8]
    table = results[1].predictions.iloc[found]
    assert len(set(zip(table.true, table.predicted, strict=True))) == 4
    assert np.array_equal(ranked, rank_images(results, NO_IMAGES))


def test_all_predictions_are_packed(results: list[ModelResults]) -> None:
    data = packed(results, np.array([3, 70]))
    labels = {name: label for label, name in enumerate(CLASSES)}
    table = results[1].predictions
    assert decode(data["true"], "u1").tolist() == table.true.map(labels).tolist()
    model = data["models"][1]
    assert decode(model["predicted"], "u1").tolist() == table.predicted.map(labels).tolist()
    np.testing.assert_allclose(
        decode(model["confidence"], "<u2") / 1e4, table.confidence, atol=5e-5
    )
    some = table.true_probability.iloc[[3, 70]]
    np.testing.assert_allclose(decode(model["trueProbability"], "<u2") / 1e4, some, atol=5e-5)
    assert data["index"] == table["index"].tolist()
    assert data["files"] is None
    assert model["errors"] == 40


def test_many_classes_need_two_bytes_per_label(tmp_path: Path) -> None:
    classes = [f"c{i}" for i in range(300)]
    model = make_results(tmp_path, "m", n=300, accuracy=1.0, classes=classes)
    images = make_images(300)
    data = pack([model], classes, images, np.array([7]), training(), flags={}, opacity=0.6)
    assert decode(data["true"], "<u2").tolist() == list(range(300))


def test_sprite_holds_exact_images_in_order(results: list[ModelResults]) -> None:
    shown = np.arange(0, 80, 2)
    data = packed(results, shown)
    head, content = data["sprite"].split(",")
    assert head == "data:image/webp;base64"
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    assert sheet.shape == (2 * 32, SPRITE_COLUMNS * 32, 3)
    images = make_images(80)
    for number, position in enumerate(shown):
        row, column = divmod(number, SPRITE_COLUMNS)
        tile = sheet[row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32]
        assert np.array_equal(tile, images[position])


def test_maps_of_an_image_share_one_scale(results: list[ModelResults]) -> None:
    shown = np.array([2, 60, 79])
    model = results[1]
    assert model.is_correct[shown].tolist() == [True, False, False]
    entry = packed(results, shown)["models"][1]
    maps = decode(entry["maps"], "i1").reshape(-1, 8, 8)
    assert len(maps) == 1 + 2 + 2
    kept = iter(maps)
    for number, position in enumerate(shown):
        expected = [model.explanations.predicted[position]]
        expected += [] if model.is_correct[position] else [model.explanations.true[position]]
        top = max(abs(one).max() for one in expected)
        most = max(one.max() for one in expected)
        assert entry["peaks"][number] == pytest.approx(most, rel=5e-3)
        for one in expected:
            np.testing.assert_allclose(next(kept) / STEPS * top, one, atol=1.01 * top / STEPS)


def test_class_agnostic_maps_are_packed_once(results: list[ModelResults]) -> None:
    agnostic = replace(results[1].explanations, method="eigencam", class_specific=False)
    other_model = replace(results[1], explanations=agnostic)
    shown = np.array([2, 60, 79])
    one, other = packed([results[1], other_model], shown)["models"]
    assert [one["classSpecific"], other["classSpecific"]] == [True, False]
    assert len(decode(one["maps"], "i1")) == (1 + 2 + 2) * 64
    assert len(decode(other["maps"], "i1")) == 3 * 64


@pytest.mark.parametrize("size", [32, 656, 5000])
def test_sprite_of_any_image_size_fits_webp(size: int) -> None:
    """A WebP image has at most 16,383 pixels per side (RFC 9649)."""
    count, columns = max_images(size), sprite_columns(size)
    assert columns * size <= 16_383
    assert count // columns * size <= 16_383
    assert count % columns == 0
    assert count >= {32: 600, 656: 576, 5000: 9}[size]


def test_weak_evidence_is_not_rounded_to_none(tmp_path: Path) -> None:
    model = make_results(tmp_path, "m", accuracy=0.5)
    position = int(np.flatnonzero(~model.is_correct)[0])
    model.explanations.predicted[position] = -1.0
    model.explanations.predicted[position, 0, 0] = 1e-4
    model.explanations.true[position] = -1.0
    entry = packed([model], np.array([position]))["models"][0]
    maps = decode(entry["maps"], "i1").reshape(2, 8, 8)
    assert maps[0].max() == 1
    assert maps[1].max() < 0


def test_neighbours_have_labels_and_some_have_pictures(results: list[ModelResults]) -> None:
    shown = np.arange(0, 80, 7)
    found = pack(
        results, CLASSES, make_images(80), shown, training(np.arange(0, TRAIN, 2)),
        flags={}, opacity=0.6,
    )  # fmt: skip
    for model, entry in zip(results, found["models"], strict=True):
        nearest = model.neighbours.nearest[shown]
        expected = training().split.labels[nearest]
        assert decode(entry["nearestLabels"], "u1").reshape(nearest.shape).tolist() == (
            expected.tolist()
        )
        pictures = decode(entry["nearest"], "<i2").reshape(nearest.shape)
        assert pictures.tolist() == np.where(nearest % 2, -1, nearest // 2).tolist()


def test_best_wrong_model_has_its_training_images_first(
    results: list[ModelResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has images of its own: a test image's number, and 20 more in the second model."""
    both_wrong = np.flatnonzero(~results[0].is_correct & ~results[1].is_correct)[:3]
    assert len(both_wrong) == 3
    nearest = np.arange(80)[:, None] % 20
    results = [
        replace(model, neighbours=replace(model.neighbours, nearest=nearest + more))
        for model, more in zip(results, (0, 20), strict=True)
    ]
    monkeypatch.setattr("cifarpipe.report.training_images.MOST", 4)
    chosen = choose_training_images(results, both_wrong, NO_IMAGES, 32)
    first = both_wrong % 20
    assert chosen.tolist() == sorted([*first, first[0] + 20])


def test_no_images_can_be_packed(results: list[ModelResults]) -> None:
    data = packed(results, np.empty(0, np.int64))
    assert data["shown"] == []
    assert data["models"][0]["maps"] == ""


def test_predictions_that_contradict_confusions_are_refused(
    results: list[ModelResults],
) -> None:
    table = results[0].predictions
    # As many errors, but another confusion.
    wrong = np.flatnonzero(~results[0].is_correct)[0]
    other = next(c for c in CLASSES if c not in (table.true[wrong], table.predicted[wrong]))
    table.loc[wrong, "predicted"] = other
    with pytest.raises(AssertionError, match="confusions must add up"):
        packed(results, np.array([1]))
