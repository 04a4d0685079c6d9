"""Warnings about networks that may not have learned, and none about networks that have."""

import numpy as np
import pytest

from cifarpipe.evaluation.calibration import UNKNOWN_TEMPERATURE
from cifarpipe.evaluation.diagnosis import learning_warnings
from cifarpipe.evaluation.metrics import compute_metrics, confusion_matrix, confusion_table

CLASSES = [f"class {i}" for i in range(10)]
LABELS = np.arange(500) % 10


def warnings(
    predicted: np.ndarray, labels: np.ndarray = LABELS, classes: int = 10, train_loss: float = 0.5
) -> list[str]:
    logits = np.eye(classes, dtype=np.float32)[predicted]
    metrics = compute_metrics(logits, labels, calibration_bins=15, temperature=UNKNOWN_TEMPERATURE)
    matrix = confusion_matrix(labels, predicted, classes)
    confusion = confusion_table(matrix, CLASSES[:classes])
    return learning_warnings(metrics["accuracy"], confusion, train_loss, classes)


def not_learned(accuracy: str, constant: str) -> str:
    return (
        f"may not have learned: its accuracy, {accuracy}, is not significantly above {constant}, "
        f"that of always predicting the most frequent class"
    )


def test_random_predictions_are_not_learned() -> None:
    predicted = np.random.default_rng(0).integers(0, 10, 500)
    accuracy = f"{(predicted == LABELS).mean():.1%}"
    assert warnings(predicted) == [not_learned(accuracy, "10.0%")]


def test_few_images_do_not_tell() -> None:
    """Eight of ten are correct; the interval of 80% begins at 49%."""
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


def test_most_frequent_class_alone_is_not_learned() -> None:
    """Although 90% of the predictions are correct."""
    labels = np.where(np.arange(500) < 450, 0, 1)
    assert warnings(np.zeros(500, int), labels, 2) == [
        not_learned("90.0%", "90.0%"),
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
        f"diverged: its training loss ended at {loss:.2f}; guessing has 2.30"
    ]
