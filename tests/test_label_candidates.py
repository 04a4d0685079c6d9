"""Candidates for label errors: by hand, and on labels that were changed on purpose."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifarpipe.explanations.neighbours import neighbour_votes
from cifarpipe.report.label_candidates import confident_disagreements, label_candidates
from cifarpipe.store.prepared import Split


def test_candidates_by_hand() -> None:
    probabilities = np.array(
        [
            [0.9, 0.1],
            [0.7, 0.3],
            [0.1, 0.9],  # labelled 0, but surely 1
            [0.2, 0.8],
            [0.1, 0.9],
            [0.6, 0.4],  # labelled 1; class 0 reaches its threshold
            [0.45, 0.55],  # labelled 0; class 1 does not reach its threshold
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    # Thresholds: (0.9 + 0.7 + 0.1 + 0.45) / 4 = 0.5375 and (0.8 + 0.9 + 0.4) / 3 = 0.7.
    found = confident_disagreements(probabilities, labels)
    assert found.to_dict("list") == {
        "position": [2, 5],
        "suggested": [1, 0],
        "label_probability": [0.1, 0.4],
        "suggested_probability": [0.9, 0.6],
    }


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0]])
def test_without_disagreement_there_is_no_candidate(labels: list[int]) -> None:
    probabilities = np.tile([0.9, 0.05, 0.05], (len(labels), 1))
    assert len(confident_disagreements(probabilities, np.array(labels, np.int64))) == 0


def test_changed_training_labels_are_found_by_their_neighbours() -> None:
    """5% of the labels of ten overlapping clusters are changed."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 2000)
    features = torch.from_numpy(rng.normal(size=(10, 16))[true] + rng.normal(0, 0.8, (2000, 16)))
    changed = rng.permutation(2000)[:100]
    labels = true.copy()
    labels[changed] = (labels[changed] + rng.integers(1, 10, 100)) % 10
    unit = F.normalize(features.float(), dim=1)
    votes = neighbour_votes(unit, labels, 10) / 50
    found = confident_disagreements(votes, labels).position
    assert np.isin(found[:100], changed).mean() >= 0.8
    assert votes[changed, labels[changed]].max() < 0.5


def test_correct_images_of_small_classes_do_not_crowd_the_list() -> None:
    """Ten classes of 300 overlap, with 60 wrong labels; 30 of one to six images are correct."""
    rng = np.random.default_rng(0)
    sizes = [300] * 10 + [1 + i % 6 for i in range(30)]
    labels = np.repeat(np.arange(40), sizes)
    features = rng.normal(size=(40, 16))[labels] + rng.normal(0, 0.8, (len(labels), 16))
    changed = rng.permutation(3000)[:60]
    labels[changed] = (labels[changed] + rng.integers(1, 10, 60)) % 10
    votes = neighbour_votes(F.normalize(torch.from_numpy(features).float(), dim=1), labels, 40)
    voted = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    found = confident_disagreements(voted, labels).position
    assert np.isin(found[:21], changed).mean() >= 0.9


@pytest.mark.parametrize("size", [2, 5, 10, 20, 60])
def test_correct_labels_of_small_classes_are_no_candidates(size: int) -> None:
    """Ten clusters, far apart, beside a large class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(11), [size] * 10 + [500])
    features = 20 * rng.normal(size=(11, 16))[labels] + rng.normal(size=(len(labels), 16))
    unit = F.normalize(torch.from_numpy(features).float(), dim=1)
    votes = neighbour_votes(unit, labels, 11).astype(np.float64)
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1)
    assert len(confident_disagreements(votes, labels)) == 0


def test_label_more_probable_than_the_suggestion_is_no_candidate() -> None:
    """A class that is rarely predicted has a low threshold, which other classes' images reach."""
    probabilities = np.array([[0.55, 0.45], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    labels = np.array([0, 0, 1, 1])  # thresholds: 0.725 and 0.25
    assert confident_disagreements(probabilities, labels).position.tolist() == [2]


def test_most_probable_class_below_its_threshold_suggests_no_other() -> None:
    """Class 0 misses its threshold; class 2 reaches its own, but is less probable than label 1."""
    probabilities = np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    probabilities = np.vstack([probabilities, [0.45, 0.45, 0.1]])
    labels = np.array([1, 0, 1, 1, 2])  # thresholds: 0.9, 0.63, 0.1
    assert 0 not in confident_disagreements(probabilities, labels).position.tolist()


def test_table_names_the_files() -> None:
    split = Split(np.zeros((1, 4, 4, 3), np.uint8), np.array([1]), np.array([7]), ["dog/a b.png"])
    both = Split(split.images.repeat(2, 0), np.array([0, 1]), np.arange(2), ["c/1.png", "d/2.png"])
    probabilities = np.array([[0.8, 0.2], [0.9, 0.1]])
    table = label_candidates([("test", both, probabilities)], ["cat", "dog"])
    assert table.file.tolist() == ["d/2.png"]
    other = np.array([[0.1, 0.9], [0.2, 0.8]])
    swapped = label_candidates([("test", both, other)], ["cat", "dog"])
    assert swapped.file.tolist() == ["c/1.png"]
    assert split.names(np.array([0])) == ["dog/a b.png"]


def test_table_names_classes_and_images() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    split = Split(images, np.array([0, 1]), np.array([30, 70]))
    right, wrong = np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([[0.8, 0.2], [0.9, 0.1]])
    table = label_candidates([("test", split, right), ("train", split, wrong)], ["cat", "dog"])
    assert table.to_dict("records") == [
        {
            "split": "train",
            "position": 1,
            "index": 70,
            "file": "",
            "label": "dog",
            "suggested": "cat",
            "label_probability": 0.1,
            "suggested_probability": 0.9,
        }
    ]


def test_class_without_images_is_not_suggested() -> None:
    """It has no threshold that its probability could miss."""
    probabilities = np.array([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    assert len(confident_disagreements(probabilities, np.array([0, 0, 1, 1]))) == 0
