"""Every figure against scikit-learn, SciPy, a naive loop or a case computed by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.evaluation.metrics import (
    Floats,
    Labels,
    brier_score,
    class_scores,
    class_table,
    confusion_matrix,
    confusion_table,
    log_softmax,
    measure,
    softmax,
    top_k_accuracy,
    tta_accuracy,
)
from cifarpipe.results.predictions import predictions_table
from tests.test_calibration import naive_calibration_error, naive_equal_mass_error

ODD_NAMES = ["007", "NA", "a,b", "true", "1e3", 'say "hi"', " space ", "", "null", "<b>"]


def draw(n: int = 400, k: int = 10, seed: int = 0) -> tuple[np.ndarray, Labels]:
    """Return logits that are right in about two cases of three, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(0, 2, (n, k))
    logits[np.arange(n), labels] += 3.5
    return logits.astype(np.float32), labels


@st.composite
def answers(draw_one: st.DrawFn) -> tuple[np.ndarray, Labels]:
    """Return any logits, with many ties, and any labels: classes may be missing on both sides."""
    n, k = draw_one(st.integers(1, 30)), draw_one(st.integers(2, 6))
    value = st.integers(-8, 8).map(lambda whole: whole / 2) | st.sampled_from([1e-20, -1e-20])
    rows = st.lists(value, min_size=k, max_size=k)
    logits = draw_one(st.lists(rows, min_size=n, max_size=n))
    labels = draw_one(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return np.array(logits, np.float32), np.array(labels, np.int64)


def naive_top_k(scores: Floats, labels: Labels, k: int) -> float:
    """Equal scores rank in the order of their labels, as argmax takes them."""
    ranked = [sorted(range(len(row)), key=lambda label: (-row[label], label)) for row in scores]
    return float(np.mean([label in best[:k] for best, label in zip(ranked, labels, strict=True)]))


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_scikit_learns(seed: int) -> None:
    logits, labels = draw(seed=seed)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    figures = measure(logits, labels, calibration_bins=15, temperature=2.0)
    cooler = scipy.special.softmax(logits.astype(np.float64) / 2, axis=1)
    correct = int(sklearn.metrics.accuracy_score(labels, predicted, normalize=False))
    interval = scipy.stats.binomtest(correct, len(labels)).proportion_ci(method="wilson")
    expected = {
        "errors": len(labels) - correct,
        "accuracy": correct / len(labels),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "loss": sklearn.metrics.log_loss(labels, probabilities, labels=range(10)),
        "top2": sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=range(10)),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "ece": naive_calibration_error(probabilities, labels, 15),
        "ece_equal_mass": naive_equal_mass_error(probabilities, labels, 15),
        "brier": 10 * sklearn.metrics.mean_squared_error(np.eye(10)[labels], probabilities),
        "temperature": 2.0,
        "scaled_loss": sklearn.metrics.log_loss(labels, cooler, labels=range(10)),
        "scaled_ece": naive_calibration_error(cooler, labels, 15),
    }
    assert figures == {name: round(float(value), 4) for name, value in expected.items()}
    assert 0 < figures["errors"] < len(labels)  # else the comparison would say little


@settings(deadline=None, max_examples=60)
@given(answers())
def test_any_answers_add_up(case: tuple[np.ndarray, Labels]) -> None:
    logits, labels = case
    n, k = logits.shape
    predicted = logits.argmax(axis=1)
    figures = measure(logits, labels, calibration_bins=7, temperature=1.0)
    matrix = confusion_matrix(labels, predicted, k)
    np.testing.assert_array_equal(
        matrix, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(k))
    )
    off_diagonal = int(matrix.sum() - np.trace(matrix))
    assert figures["errors"] == n - (predicted == labels).sum() == off_diagonal
    assert figures["accuracy"] == round(1 - off_diagonal / n, 4)
    assert figures["top2"] == round(naive_top_k(softmax(logits), labels, 2), 4)
    assert figures["macro_f1"] == round(
        sklearn.metrics.f1_score(
            labels, predicted, labels=range(k), average="macro", zero_division=0
        ),
        4,
    )
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
    assert 0 <= figures["ece"] <= 1
    assert 0 <= figures["brier"] <= 2
    table = predictions_table(logits, labels, np.arange(n), [f"c{i}" for i in range(k)], None)
    assert (table.true != table.predicted).sum() == off_diagonal


def test_figures_are_plain_numbers_of_four_places() -> None:
    figures = measure(*draw(), calibration_bins=15, temperature=1.0)
    assert json.loads(json.dumps(figures)) == figures
    assert all(value == round(value, 4) for value in figures.values())


def test_answers_to_variants_count_together() -> None:
    labels = np.array([0, 1, 1])
    first = np.array([[2, 0], [3, 0], [0, 1]], np.float32)  # right, wrong, right
    second = np.array([[0, 1], [0, 4], [0.5, 0]], np.float32)  # wrong, surely right, wrong
    assert tta_accuracy(first, labels=labels) == 0.6667
    assert tta_accuracy(second, labels=labels) == 0.3333
    assert tta_accuracy(first, second, labels=labels) == 1.0


def test_confusion_matrix_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2, 1])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 1, 1]]
    scores = pd.DataFrame(class_scores(matrix))
    assert scores.images.tolist() == [2, 2, 3]
    assert scores.predictions.tolist() == [2, 4, 1]
    assert scores.precision.tolist() == [1 / 2, 2 / 4, 1]
    assert scores.recall.tolist() == [1 / 2, 1, 1 / 3]
    assert scores.f1.tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 2])


def test_class_scores_are_scikit_learns_with_scipys_intervals() -> None:
    logits, labels = draw(k=5)
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


def test_a_class_without_images_or_never_predicted_scores_nothing() -> None:
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


def test_equal_scores_count_once() -> None:
    """A network that says the same of all classes knows nothing: top-2 is 2 of 5, not all."""
    scores, labels = np.full((5, 5), 0.2), np.arange(5)
    assert [top_k_accuracy(scores, labels, k) for k in range(1, 6)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    figures = measure(np.zeros((5, 5), np.float32), labels, calibration_bins=15, temperature=1.0)
    assert figures["accuracy"] == 0.2
    assert figures["top2"] == 0.4
    assert figures["loss"] == round(math.log(5), 4)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_is_scikit_learns(k: int) -> None:
    logits, labels = draw()
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(10))
    assert top_k_accuracy(logits.astype(np.float64), labels, k) == pytest.approx(expected)


def test_softmax_is_scipys_and_stays_finite() -> None:
    logits = np.array([[1e4, 0, -1e4], [0.25, 0.5, 1], [3e38, -3e38, 0]], np.float32)
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(log_softmax(logits), scipy.special.log_softmax(exact, axis=1))
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(exact, axis=1))
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1)


def test_the_confusion_table_is_the_matrix_by_hand() -> None:
    table = confusion_table(np.array([[3, 1], [0, 2]]), ["cat", "dog"])
    assert table.to_dict("records") == [
        {"true": "cat", "predicted": "cat", "images": 3},
        {"true": "cat", "predicted": "dog", "images": 1},
        {"true": "dog", "predicted": "cat", "images": 0},
        {"true": "dog", "predicted": "dog", "images": 2},
    ]
