"""Near-duplicates: copies of test images that were put into train are found."""

from dataclasses import replace

import numpy as np
import pytest

from cifarpipe.report.near_duplicates import near_duplicates
from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Split

VOTES = np.zeros((0, 2), np.uint8)
NO_CLUSTERS = np.zeros((2, 0), np.int32)


def make_split(images: np.ndarray, step: int) -> Split:
    count = len(images)
    return Split(images, np.arange(count) % 2, np.arange(count) * step)


def nearest(*rows: list[int]) -> Neighbours:
    places = np.array(rows, np.int32)
    return Neighbours(places, np.ones(places.shape, np.float32), VOTES, *NO_CLUSTERS)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def test_copies_are_found_among_the_neighbours(images: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    test, train = images[:3].copy(), images[3:].copy()
    train[1] = test[0]  # a copy
    brighter = test[2] * 0.6 + 60 + rng.normal(0, 5, (8, 8, 3))
    train[2] = brighter.round().astype(np.uint8)
    neighbours = [nearest([0, 1], [0, 1], [0, 1]), nearest([0, 2], [1, 2], [0, 2])]
    found = near_duplicates(make_split(test, 10), make_split(train, 100), neighbours)
    assert found[["position", "train_position", "index", "train_index"]].values.tolist() == [
        [0, 1, 0, 100],
        [2, 2, 20, 200],
    ]
    assert found.correlation[0] == 1
    centred = [image - image.mean(axis=(0, 1)) for image in (test[2], train[2])]
    expected = np.corrcoef(*(image.ravel() for image in centred))[0, 1]
    assert found.correlation[1] == pytest.approx(expected, abs=1e-4)
    assert found.same_label.tolist() == [False, True]
    assert (found[["file", "train_file"]] == "").all(axis=None)


def test_files_of_a_pair_are_named(images: np.ndarray) -> None:
    test, train = make_split(images[:2], 1), make_split(images[[5, 1]], 1)
    named = [
        replace(each, files=[f"{i}.png" for i in numbers])
        for each, numbers in ((test, (1, 2)), (train, (8, 9)))
    ]
    found = near_duplicates(*named, [nearest([0, 1], [0, 1])])
    assert found[["file", "train_file"]].to_numpy().tolist() == [["2.png", "9.png"]]


def test_other_images_are_no_duplicates(images: np.ndarray) -> None:
    test, train = make_split(images[:3], 1), make_split(images[3:], 1)
    found = near_duplicates(test, train, [nearest([0, 1], [1, 2], [2, 0])])
    assert len(found) == 0
    assert "correlation" in found


def test_images_of_one_colour_are_no_duplicates() -> None:
    plain = make_split(np.full((2, 8, 8, 3), 90, np.uint8), 1)
    assert len(near_duplicates(plain, plain, [nearest([0], [1])])) == 0


def test_images_of_similar_colour_are_no_duplicates(images: np.ndarray) -> None:
    """Red images: without centring each channel, they correlate by more than 0.9."""
    red = (images[:2] // 8 + np.array([200, 20, 20])).astype(np.uint8)
    assert np.corrcoef(red[0].ravel(), red[1].ravel())[0, 1] > 0.9
    split = make_split(red, 1)
    assert len(near_duplicates(split, split, [nearest([1], [0])])) == 0


@pytest.mark.parametrize(("correlation", "is_duplicate"), [(0.86, False), (0.94, True)])
def test_duplicates_correlate_by_at_least_nine_tenths(
    correlation: float, is_duplicate: bool
) -> None:
    """A sum of a pattern and another that is orthogonal to it."""
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(2, 16, 16, 3))
    centred -= centred.mean(axis=(1, 2), keepdims=True)
    first, second = centred.reshape(2, -1)
    second -= first * (first @ second) / (first @ first)
    second *= np.linalg.norm(first) / np.linalg.norm(second)
    mixed = correlation * first + (1 - correlation**2) ** 0.5 * second
    test, train = (
        np.clip(128 + 30 * each.reshape(1, 16, 16, 3), 0, 255).astype(np.uint8)
        for each in (first, mixed)
    )
    found = near_duplicates(make_split(test, 1), make_split(train, 1), [nearest([0])])
    assert (len(found) == 1) == is_duplicate
