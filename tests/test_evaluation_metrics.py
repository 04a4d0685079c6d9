"""Metrics compared with scikit-learn, SciPy, a naive loop or a case computed by hand."""

import json
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.evaluation.calibration import Temperature
from cifarpipe.evaluation.metrics import (
    brier_score,
    class_table,
    compute_metrics,
    confusion_matrix,
    confusion_table,
    headline,
    mean_log_loss,
    softmax,
    top_k_accuracy,
    tta_accuracy,
)
from cifarpipe.results.metrics import Metrics, metrics_table
from cifarpipe.results.predictions import predictions_table
from tests.support.logits import draw_logits
from tests.support.naive_calibration import naive_calibration_error, naive_equal_mass_error


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return any logits, with many ties, and any labels; classes may be missing in both."""
    n, k = draw(st.integers(1, 30)), draw(st.integers(2, 6))
    value = st.integers(-8, 8).map(lambda whole: whole / 2) | st.sampled_from([1e-20, -1e-20])
    rows = st.lists(value, min_size=k, max_size=k)
    logits = draw(st.lists(rows, min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return np.array(logits, np.float32), np.array(labels, np.int64)


def naive_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Equal scores rank in the order of their labels, as in argmax."""
    ranked = [sorted(range(len(row)), key=lambda label: (-row[label], label)) for row in scores]
    return float(np.mean([label in best[:k] for best, label in zip(ranked, labels, strict=True)]))


def values(metrics: Metrics) -> dict[str, object]:
    return {name: metric.value for name, metric in metrics.items()}


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_scikit_learn(seed: int) -> None:
    logits, labels = draw_logits(seed=seed)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    metrics = compute_metrics(
        logits, labels, calibration_bins=15, temperature=Temperature(2.0, 1.9, 2.2)
    )
    scaled = scipy.special.softmax(logits.astype(np.float64) / 2, axis=1)
    correct = int(sklearn.metrics.accuracy_score(labels, predicted, normalize=False))
    expected = {
        "errors": len(labels) - correct,
        "accuracy": correct / len(labels),
        "loss": sklearn.metrics.log_loss(labels, probabilities, labels=range(10)),
        "top2": sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=range(10)),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "ece": naive_calibration_error(probabilities, labels, 15),
        "ece_equal_mass": naive_equal_mass_error(probabilities, labels, 15),
        "brier": 10 * sklearn.metrics.mean_squared_error(np.eye(10)[labels], probabilities),
        "temperature": 2.0,
        "scaled_loss": sklearn.metrics.log_loss(labels, scaled, labels=range(10)),
        "scaled_ece": naive_calibration_error(scaled, labels, 15),
    }
    assert values(metrics) == {name: round(float(value), 4) for name, value in expected.items()}
    interval = scipy.stats.binomtest(correct, len(labels)).proportion_ci(method="wilson")
    assert (metrics["temperature"].low, metrics["temperature"].high) == (1.9, 2.2)
    accuracy = metrics["accuracy"]
    assert accuracy.low == round(interval.low, 4)
    assert accuracy.high == round(interval.high, 4)
    assert 0 < metrics["errors"].value < len(labels)


@pytest.mark.thorough
@settings(deadline=None, max_examples=60)
@given(predictions())
def test_metrics_of_any_predictions_agree(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = case
    n, k = logits.shape
    predicted = logits.argmax(axis=1)
    metrics = compute_metrics(logits, labels, calibration_bins=7, temperature=None)
    found = values(metrics)
    matrix = confusion_matrix(labels, predicted, k)
    np.testing.assert_array_equal(
        matrix, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(k))
    )
    off_diagonal = int(matrix.sum() - np.trace(matrix))
    assert found["errors"] == n - (predicted == labels).sum() == off_diagonal
    assert found["accuracy"] == round(1 - off_diagonal / n, 4)
    top2 = round(naive_top_k(softmax(logits), labels, 2), 4)
    assert found.get("top2") == (top2 if logits.shape[1] > 2 else None)
    present = np.unique(labels)  # scikit-learn warns of predictions of classes without images
    recalls = sklearn.metrics.recall_score(labels, predicted, labels=present, average="macro")
    assert found["balanced_accuracy"] == round(float(recalls), 4)
    assert found["macro_f1"] == round(
        sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        4,
    )
    assert metrics["accuracy"].low <= found["accuracy"] <= metrics["accuracy"].high
    assert 0 <= found["ece"] <= 1
    assert 0 <= found["brier"] <= 2
    assert len(metrics_table(metrics)) == len(metrics)  # all values are finite
    table = predictions_table(logits, labels, np.arange(n), [f"c{i}" for i in range(k)], None)
    assert (table.true != table.predicted).sum() == off_diagonal


def test_headline_holds_six_rounded_numbers() -> None:
    metrics = compute_metrics(*draw_logits(), calibration_bins=15, temperature=None)
    found = headline(metrics)
    assert list(found)[:3] == ["accuracy", "accuracy_low", "accuracy_high"]
    assert len(found) == 6  # with those of training and explanations nine
    assert json.loads(json.dumps(found)) == found
    assert all(value == round(value, 4) for value in found.values())
    assert found["accuracy_low"] == metrics["accuracy"].low < found["accuracy"]
    assert found["accuracy_high"] == metrics["accuracy"].high > found["accuracy"]
    others = [name for name in found if name not in ("accuracy_low", "accuracy_high")]
    assert all(found[name] == metrics[name].value for name in others)


def test_tta_accuracy_averages_logits() -> None:
    labels = np.array([0, 1, 1])
    first = np.array([[2, 0], [3, 0], [0, 1]], np.float32)  # correct, wrong, correct
    second = np.array([[0, 1], [0, 4], [0.5, 0]], np.float32)  # wrong, correct, wrong
    assert tta_accuracy(first, labels=labels).value == 0.6667
    assert tta_accuracy(second, labels=labels).value == 0.3333
    assert tta_accuracy(first, second, labels=labels).value == 1.0


def test_confusion_matrix_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2, 1])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 1, 1]]
    scores = class_table(matrix, list("abc"))
    assert scores.images.tolist() == [2, 2, 3]
    assert scores.predictions.tolist() == [2, 4, 1]
    assert scores.precision.tolist() == [1 / 2, 2 / 4, 1]
    assert scores.recall.tolist() == [1 / 2, 1, 0.3333]
    assert scores.f1.tolist() == [1 / 2, 0.6667, 1 / 2]


def test_class_scores_equal_scikit_learn() -> None:
    logits, labels = draw_logits(k=5)
    predicted = logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, 5)
    table = class_table(matrix, list("abcde"))
    assert table["class"].tolist() == list("abcde")
    assert next(iter(table)) == "class"
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted
    )
    for column, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_array_equal(table[column], expected.round(4))
    np.testing.assert_array_equal(table.images, support)
    np.testing.assert_array_equal(table.predictions, np.bincount(predicted, minlength=5))
    for label, row in enumerate(table.to_dict("records")):
        test = scipy.stats.binomtest(int(matrix[label, label]), int(support[label]))
        low, high = test.proportion_ci(method="wilson")
        assert (row["recall_low"], row["recall_high"]) == (round(low, 4), round(high, 4))


def test_absent_class_scores_zero() -> None:
    """Class 1 has no images, class 2 is never predicted, class 3 neither."""
    matrix = confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 1]), 4)
    table = class_table(matrix, list("abcd"))
    assert table.images.tolist() == [2, 0, 1, 0]
    assert table.predictions.tolist() == [1, 2, 0, 0]
    assert table.precision.tolist() == [1, 0, 0, 0]
    assert table.recall.tolist() == [0.5, 0, 0, 0]
    assert table.f1.tolist() == [round(2 / 3, 4), 0, 0, 0]
    assert table.recall_low[[1, 3]].tolist() == [0, 0]
    assert table.recall_high[[1, 3]].tolist() == [1, 1]


def test_confusion_table_has_a_row_per_cell() -> None:
    table = confusion_table(np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    assert list(table) == ["true", "predicted", "images"]
    assert table.to_numpy().tolist() == [
        ["cat", "cat", 3],
        ["cat", "dog", 1],
        ["dog", "cat", 0],
        ["dog", "dog", 2],
    ]


def test_brier_score_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    first, second = 0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.7**2 + 0.6**2
    score = brier_score(probabilities, np.array([0, 1]))
    assert score == pytest.approx((first + second) / 2) == pytest.approx(0.5)
    assert brier_score(np.eye(2), np.array([0, 1])) == 0
    assert brier_score(np.eye(2), np.array([1, 0])) == 2


def test_top_k_counts_equal_scores_once() -> None:
    """Equal logits for five classes have a top-2 accuracy of 2 in 5."""
    scores, labels = np.full((5, 5), 0.2), np.arange(5)
    assert [top_k_accuracy(scores, labels, k) for k in range(1, 6)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    equal = np.zeros((5, 5), np.float32)
    metrics = compute_metrics(equal, labels, calibration_bins=15, temperature=None)
    assert metrics["accuracy"].value == 0.2
    assert metrics["top2"].value == 0.4
    assert metrics["loss"].value == round(math.log(5), 4)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_equals_scikit_learn(k: int) -> None:
    logits, labels = draw_logits()
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(10))
    assert top_k_accuracy(logits.astype(np.float64), labels, k) == pytest.approx(expected)


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, 0, -1e4], [0.25, 0.5, 1], [3e38, -3e38, 0]], np.float32)
    assert np.isfinite(softmax(logits)).all()
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1)
    assert mean_log_loss(logits[:1], np.array([2])) == 2e4
    assert mean_log_loss(logits[:1], np.array([0])) == 0
