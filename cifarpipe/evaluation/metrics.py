"""What a network's answers on the test split are worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import NDArray

from cifarpipe.evaluation.calibration import calibration_error, equal_mass_calibration_error
from cifarpipe.results.intervals import wilson_interval

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def measure(
    logits: NDArray[np.float32], labels: Labels, *, calibration_bins: int, temperature: float
) -> dict[str, float | int]:
    """Return all figures of a model on a split, rounded to 4 places.

    Args:
        logits: `[N, classes]`.
        labels: `[N]`.
        calibration_bins: Of the calibration errors.
        temperature: By which logits are divided for `scaled_loss` and `scaled_ece`; fitted
            elsewhere.
    """
    n, k = logits.shape
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, k)
    correct = int((predicted == labels).sum())
    errors = n - correct
    assert errors == matrix.sum() - np.trace(matrix), "errors must be what is off the diagonal"
    low, high = wilson_interval(correct, n)
    scaled = logits / np.float32(temperature)
    likelihood = log_softmax(logits)[np.arange(n), labels]
    figures = {
        "accuracy": correct / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": float(-likelihood.mean()),
        "top2": top_k_accuracy(probabilities, labels, 2),
        "macro_f1": float(np.mean([row["f1"] for row in class_scores(matrix)])),
        "ece": calibration_error(probabilities, labels, calibration_bins),
        "ece_equal_mass": equal_mass_calibration_error(probabilities, labels, calibration_bins),
        "brier": brier_score(probabilities, labels),
        "temperature": temperature,
        "scaled_loss": float(-log_softmax(scaled)[np.arange(n), labels].mean()),
        "scaled_ece": calibration_error(softmax(scaled), labels, calibration_bins),
    }
    return {"errors": errors, **{name: round(value, 4) for name, value in figures.items()}}


def tta_accuracy(*logits: NDArray[np.float32], labels: Labels) -> float:
    """Return the accuracy of the mean of `[N, classes]` answers to variants of the same images."""
    return round(float((np.mean(logits, axis=0).argmax(axis=1) == labels).mean()), 4)


def class_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return a row per class: precision, recall with its 95% interval, F1 and how many there are.

    Args:
        matrix: `[classes, classes]` counts, rows true, columns predicted.
        classes: Names, by label.
    """
    table = pd.DataFrame(class_scores(matrix)).round(4)
    table.insert(0, "class", list(classes))
    return table


def class_scores(matrix: NDArray[np.int64]) -> list[dict[str, float | int]]:
    """Return scores of each class; a ratio of nothing to nothing is 0, as in scikit-learn."""
    scores = []
    for label, hits in enumerate(np.diag(matrix)):
        images, guesses = int(matrix[label].sum()), int(matrix[:, label].sum())
        low, high = wilson_interval(int(hits), images)
        scores.append(
            {
                "images": images,
                "predictions": guesses,
                "precision": float(hits / guesses) if guesses else 0.0,
                "recall": float(hits / images) if images else 0.0,
                "recall_low": low,
                "recall_high": high,
                "f1": float(2 * hits / (images + guesses)) if images + guesses else 0.0,
            }
        )
    return scores


def confusion_matrix(labels: Labels, predicted: Labels, k: int) -> NDArray[np.int64]:
    """Count images: `[k, k]`, rows true, columns predicted."""
    return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)


def confusion_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return the matrix as a row per cell: `true`, `predicted`, `images`."""
    k = len(classes)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {"true": names.repeat(k), "predicted": np.tile(names, k), "images": matrix.ravel()}
    )


def top_k_accuracy(scores: Floats, labels: Labels, k: int) -> float:
    """Return how often the true class is among the k highest of `[N, classes]`."""
    own = scores[np.arange(len(labels)), labels][:, None]
    # Equal scores rank by label, as argmax takes them: all classes alike is no success.
    before = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > own) | ((scores == own) & before)
    return float((ahead.sum(axis=1) < k).mean())


def brier_score(probabilities: Floats, labels: Labels) -> float:
    """Return the mean squared distance to the one-hot truth, over all classes: 0 … 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    """Return log-probabilities `[N, classes]` in double precision."""
    return scipy.special.log_softmax(logits.astype(np.float64), axis=1)


def softmax(logits: NDArray[np.float32]) -> Floats:
    """Return probabilities `[N, classes]` in double precision."""
    return scipy.special.softmax(logits.astype(np.float64), axis=1)
