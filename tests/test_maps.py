"""Explanations on disk and in memory: the maps of some images, in the requested order."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.results.maps import (
    Explanations,
    load_explanations,
    save_explanations,
    without_evidence,
)


@pytest.fixture
def explanations() -> Explanations:
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=(2, 20, 4, 4)).astype(np.float32)
    return Explanations("gradcam", rng.permutation(100)[:20], predicted, true, True)


def assert_equal(found: Explanations, expected: Explanations) -> None:
    assert found.method == expected.method
    assert found.class_specific == expected.class_specific
    for field in ("index", "predicted", "true"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


# In memory.


def test_maps_follow_the_requested_order(explanations: Explanations) -> None:
    rows = [7, 0, 3, 7, 19]
    found = explanations.of(explanations.index[rows])
    expected = Explanations(
        "gradcam",
        explanations.index[rows],
        explanations.predicted[rows],
        explanations.true[rows],
        True,
    )
    assert_equal(found, expected)


def test_no_images_give_no_maps(explanations: Explanations) -> None:
    found = explanations.of(np.empty(0, np.int64))
    assert found.predicted.shape == found.true.shape == (0, 4, 4)


@pytest.mark.parametrize("unknown", [-1, 50, 1000])
def test_unexplained_image_is_an_error(unknown: int, explanations: Explanations) -> None:
    assert unknown not in explanations.index
    with pytest.raises(KeyError, match="not explained"):
        explanations.of(np.array([explanations.index[0], unknown]))


def test_maps_without_positive_value_have_no_evidence() -> None:
    maps = np.zeros((5, 2, 2), np.float32)
    maps[1] = -1
    maps[2, 0, 1] = 1e-12
    maps[3] = [[-5, -5], [-5, 0.1]]
    assert without_evidence(maps).tolist() == [True, True, False, False, True]


# On disk.


@pytest.mark.parametrize("class_specific", [True, False])
def test_saved_explanations_are_loaded(
    tmp_path: Path, explanations: Explanations, class_specific: bool
) -> None:
    saved = replace(explanations, class_specific=class_specific)
    save_explanations(tmp_path / "cams.npz", saved)
    assert_equal(load_explanations(tmp_path / "cams.npz"), saved)


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cams.npz does not exist. Run `dvc repro`"):
        load_explanations(tmp_path / "cams.npz")


def test_flipped_bit_is_refused_or_harmless(tmp_path: Path, explanations: Explanations) -> None:
    """Some bits of the archive are not read, such as those of dates."""
    path = tmp_path / "cams.npz"
    save_explanations(path, explanations)
    whole = path.read_bytes()
    refused = 0
    for place in np.random.default_rng(1).integers(0, 8 * len(whole), 500):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = load_explanations(path)
        except UserError:
            refused += 1
        else:
            assert_equal(found, explanations)
    assert refused > 300


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_truncated_file_is_refused(kept: int, tmp_path: Path, explanations: Explanations) -> None:
    path = tmp_path / "cams.npz"
    save_explanations(path, explanations)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cams\.npz is damaged"):
        load_explanations(path)


def test_equal_maps_give_equal_bytes(tmp_path: Path, explanations: Explanations) -> None:
    for name in ("first", "second"):
        save_explanations(tmp_path / f"{name}.npz", explanations)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.npz") as file:
        assert {entry.date_time[0] for entry in file.infolist()} == {1980}  # not the current date
