"""Warnings about networks that may not have learned, and none about networks that have."""

import numpy as np
import pytest
import scipy.stats

from cifarpipe.evaluation.diagnosis import learning_warnings, shuffled_hits
from cifarpipe.evaluation.metrics import confusion_matrix, confusion_table

CLASSES = [f"class {i}" for i in range(10)]
LABELS = np.arange(500) % 10


def warnings(
    predicted: np.ndarray, labels: np.ndarray = LABELS, classes: int = 10, train_loss: float = 0.5
) -> list[str]:
    matrix = confusion_matrix(labels, predicted, classes)
    confusion = confusion_table(matrix, CLASSES[:classes])
    return learning_warnings(confusion, train_loss, classes)


def not_learned(accuracy: str, shuffled: str) -> str:
    return (
        f"may not have learned: its accuracy, {accuracy}, is not significantly above {shuffled}, "
        f"that of its predictions in random order"
    )


def test_shuffled_hits_are_hypergeometric() -> None:
    """Of two classes: hits of one class, and of the other as many as then remain."""
    hits = shuffled_hits(np.array([40, 20]), np.array([50, 10]))
    first = (hits - 60 + 40 + 50) // 2  # hits = first + (20 - (50 - first))
    for value in (32, 33, 34, 36):
        expected = scipy.stats.hypergeom.sf(value - 1, 60, 40, 50)
        assert (first >= value).mean() == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("sizes", [[1] * 100, [90, 10], [10] * 10])
def test_random_predictions_rarely_seem_learned(sizes: list[int]) -> None:
    """In at most 2.5% of all cases, whether or not classes are rare."""
    rng = np.random.default_rng(0)
    labels, k = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    learned = 0
    for _ in range(200):
        matrix = confusion_matrix(labels, rng.permutation(labels), k)
        confusion = confusion_table(matrix, [str(i) for i in range(k)])
        learned += not any("may not" in text for text in learning_warnings(confusion, 0.0, k))
    assert learned <= 11  # more has a probability of 1%


def test_random_predictions_are_not_learned() -> None:
    predicted = np.random.default_rng(0).integers(0, 10, 500)
    accuracy = f"{(predicted == LABELS).mean():.1%}"
    assert warnings(predicted) == [not_learned(accuracy, "10.0%")]


def test_few_images_do_not_tell() -> None:
    """Eight of ten are correct; by chance 5 ± 1.67 are."""
    labels = np.arange(10) % 2
    predicted = np.where(np.arange(10) < 8, labels, 1 - labels)
    assert warnings(predicted, labels, 2) == [not_learned("80.0%", "50.0%")]


def test_constant_predictions_name_the_class() -> None:
    assert warnings(np.full(500, 3)) == [
        not_learned("10.0%", "10.0%"),
        "predicts class 3 for 100% of all images",
    ]


@pytest.mark.parametrize("part", [0.2, 0.5, 1.0])
def test_learned_predictions_have_no_warning(part: float) -> None:
    random = np.random.default_rng(1).integers(0, 10, 500)
    assert warnings(np.where(np.arange(500) < 500 * part, LABELS, random)) == []


def test_rare_class_found_is_learned_but_not_accurate() -> None:
    """All 15 images of a rare class are found, and 27 of 40 others."""
    labels = np.repeat([0, 1], [15, 40])
    predicted = np.where(np.arange(55) < 15 + 13, 0, 1)
    assert warnings(predicted, labels, 2) == [
        "is not significantly more accurate (76.4%) than always predicting class 1 (72.7%)"
    ]


def test_network_below_the_most_frequent_class_is_less_accurate() -> None:
    labels = np.repeat([0, 1], [950, 50])
    predicted = np.where((np.arange(1000) < 700), 0, 1)
    assert warnings(predicted, labels, 2) == [
        "is significantly less accurate (75.0%) than always predicting class 0 (95.0%)"
    ]


def test_classes_never_predicted_are_named() -> None:
    predicted = np.where(LABELS < 8, LABELS, 0)
    assert warnings(predicted) == ["never predicts class 8, class 9"]
    assert warnings(np.where(LABELS < 3, LABELS, 0)) == ["never predicts 7 of the classes"]
    few = np.where(np.arange(500) < 496, LABELS % 9, 9)  # four images of class 9
    assert warnings(np.where(few == 9, 0, few), few) == []


def test_most_frequent_class_alone_is_not_learned() -> None:
    """Although 90% of the predictions are correct."""
    labels = np.where(np.arange(500) < 450, 0, 1)
    assert warnings(np.zeros(500, int), labels, 2) == [
        not_learned("90.0%", "90.0%"),
        "predicts class 0 for 100% of all images",
    ]


def test_accuracy_of_thirds_is_not_rounded_up() -> None:
    """Two of three, rounded to 0.6667, are not more than by chance."""
    assert warnings(np.zeros(3, int), np.array([0, 0, 1]), 2) == [
        not_learned("66.7%", "66.7%"),
        "predicts class 0 for 100% of all images",
    ]


def test_single_class_has_no_warning() -> None:
    assert warnings(np.zeros(20, int), np.zeros(20, int), 1, train_loss=0.0) == []


@pytest.mark.parametrize("loss", [0.1, 2.3, 2.5])
def test_loss_near_guessing_has_no_warning(loss: float) -> None:
    assert warnings(LABELS, train_loss=loss) == []


@pytest.mark.parametrize("loss", [2.6, 1e9])
def test_loss_above_guessing_diverged(loss: float) -> None:
    assert warnings(LABELS, train_loss=loss) == [
        f"diverged: its training loss ended at {loss:.2f}; uniform guessing has a loss of 2.30"
    ]


def test_correct_predictions_of_one_prevailing_class_have_no_warning() -> None:
    labels = np.repeat([0, 1], [990, 10])
    assert warnings(labels, labels, 2) == []


@pytest.mark.parametrize(("hits", "learned"), [(38, False), (40, True)])
def test_at_most_one_in_forty_shuffles_may_be_as_good(hits: int, learned: bool) -> None:
    """Of two classes of 30 images, half of the hits are of one: hypergeometric."""
    probability = scipy.stats.hypergeom.sf(hits // 2 - 1, 60, 30, 30)
    assert 0.03 < probability < 0.045 if not learned else probability < 0.02
    labels = np.repeat([0, 1], 30)
    predicted = np.where(np.arange(60) % 30 < hits // 2, labels, 1 - labels)
    found = warnings(predicted, labels, 2)
    assert any("may not have learned" in text for text in found) != learned


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[8960, 40], [910, 90]], None),  # intervals overlap, but McNemar's p = 1.4e-5
        ([[890, 10], [75, 25]], None),  # p = 0.017
        ([[890, 10], [82, 18]], "is not significantly more accurate (90.8%) than"),  # p = 0.18
        ([[870, 30], [90, 10]], "is significantly less accurate (88.0%) than"),
    ],
)
def test_constant_predictions_are_compared_on_the_same_images(
    matrix: list[list[int]], said: str | None
) -> None:
    table = confusion_table(np.array(matrix), CLASSES[:2])
    found = learning_warnings(table, 0.1, 2)
    assert [text.startswith(str(said)) for text in found] == ([] if said is None else [True])
