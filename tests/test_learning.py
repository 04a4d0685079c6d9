"""What is said of networks that learnt nothing, and of none that did."""

import numpy as np
import pandas as pd
import pytest

from cifarpipe.evaluation.diagnosis import answer_faults, training_faults
from cifarpipe.evaluation.metrics import confusion_matrix, confusion_table, measure

CLASSES = [f"class {i}" for i in range(10)]
LABELS = np.arange(500) % 10


def faults(predicted: np.ndarray, labels: np.ndarray = LABELS, classes: int = 10) -> list[str]:
    logits = np.eye(classes, dtype=np.float32)[predicted]
    metrics = measure(logits, labels, calibration_bins=15, temperature=1.0)
    matrix = confusion_matrix(labels, predicted, classes)
    return answer_faults(metrics, confusion_table(matrix, CLASSES[:classes]))


def test_guessing_is_no_learning() -> None:
    (said,) = faults(np.random.default_rng(0).integers(0, 10, 500))
    assert said.startswith("did not learn: accuracy ")
    assert said.endswith(", chance 10.0%")


def test_one_answer_to_everything_is_named() -> None:
    assert faults(np.full(500, 3)) == [
        "did not learn: accuracy 10.0%, chance 10.0%",
        "takes 100% of all images for class 3",
    ]


@pytest.mark.parametrize("part", [0.2, 0.5, 1.0])
def test_of_what_was_learnt_nothing_is_said(part: float) -> None:
    guessed = np.random.default_rng(1).integers(0, 10, 500)
    assert faults(np.where(np.arange(500) < 500 * part, LABELS, guessed)) == []


def test_always_the_most_frequent_class_is_no_learning() -> None:
    """Though 90% are right."""
    labels = np.where(np.arange(500) < 450, 0, 1)
    (said, also) = faults(np.zeros(500, int), labels, 2)
    assert said == "did not learn: accuracy 90.0%, chance 90.0%"
    assert also == "takes 100% of all images for class 0"


def test_of_one_class_there_is_nothing_to_learn() -> None:
    assert faults(np.zeros(20, int), np.zeros(20, int), 1) == []
    assert training_faults(pd.DataFrame({"train_loss": [0.0]}), 1) == []


@pytest.mark.parametrize(("last", "count"), [(2.3, 0), (2.5, 0), (2.6, 1), (1e9, 1), (0.1, 0)])
def test_a_loss_above_that_of_guessing_diverged(last: float, count: int) -> None:
    said = training_faults(pd.DataFrame({"train_loss": [1.0, last]}), 10)
    assert len(said) == count
    if said:
        assert said == [f"diverged: its training loss ended at {last:.2f}, guessing has 2.30"]
