"""Metrics of predictions on the test split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import NDArray

from cifarpipe.evaluation.calibration import (
    Temperature,
    calibration_error,
    equal_mass_calibration_error,
)
from cifarpipe.results.intervals import wilson_interval
from cifarpipe.results.metrics import Metric, Metrics, rounded

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def compute_metrics(
    logits: NDArray[np.float32],
    labels: Labels,
    *,
    calibration_bins: int,
    temperature: Temperature | None,
) -> Metrics:
    """Return all metrics of a model on a split, rounded; a new metric is a line here.

    Args:
        logits: `[N, classes]`.
        labels: `[N]`.
        calibration_bins: Number of bins of the calibration errors.
        temperature: Divides the logits for `scaled_loss` and `scaled_ece`; fitted on other images.
            None: these metrics are left out.
    """
    n, k = logits.shape
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, k)
    correct = int((predicted == labels).sum())
    errors = n - correct
    assert errors == matrix.sum() - np.trace(matrix), "errors must equal the off-diagonal sum"
    low, high = wilson_interval(correct, n)
    metrics = {
        "accuracy": rounded(correct / n, low=low, high=high),
        "errors": Metric(errors),
        "loss": rounded(mean_log_loss(logits, labels)),
        "ece": rounded(calibration_error(probabilities, labels, calibration_bins)),
        "ece_equal_mass": rounded(
            equal_mass_calibration_error(probabilities, labels, calibration_bins)
        ),
        **({"top2": rounded(top_k_accuracy(probabilities, labels, 2))} if k > 2 else {}),
        "balanced_accuracy": rounded(balanced_accuracy(matrix)),
        "macro_f1": rounded(macro_f1(matrix)),
        "brier": rounded(brier_score(probabilities, labels)),
    }
    if temperature is not None:
        scaled = logits / np.float32(temperature.value)
        metrics |= {
            "temperature": rounded(temperature.value, low=temperature.low, high=temperature.high),
            "scaled_loss": rounded(mean_log_loss(scaled, labels)),
            "scaled_ece": rounded(calibration_error(softmax(scaled), labels, calibration_bins)),
        }
    return metrics


def headline(metrics: Metrics) -> dict[str, float | int | str]:
    """Return the metrics that `dvc metrics diff` shows: those of metrics.json."""
    accuracy = metrics["accuracy"]
    assert accuracy.low is not None
    assert accuracy.high is not None
    return {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        **{name: metrics[name].value for name in ("errors", "loss", "ece")},
    }


def tta_accuracy(*logits: NDArray[np.float32], labels: Labels) -> Metric:
    """Return the accuracy of the mean of several `[N, classes]` logits of the same images."""
    return rounded(float((np.mean(logits, axis=0).argmax(axis=1) == labels).mean()))


def class_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return precision, recall (with its 95% interval), F1 and counts of each class, rounded.

    A ratio of 0 to 0 is 0, as in scikit-learn.

    Args:
        matrix: `[classes, classes]` counts, rows true, columns predicted.
        classes: Names, by label.
    """
    hits, images, predictions = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    intervals = map(wilson_interval, hits.tolist(), images.tolist())
    low, high = zip(*intervals, strict=True)
    return pd.DataFrame(
        {
            "class": list(classes),
            "images": images,
            "predictions": predictions,
            "precision": hits / predictions.clip(min=1),
            "recall": hits / images.clip(min=1),
            "recall_low": low,
            "recall_high": high,
            "f1": 2 * hits / (images + predictions).clip(min=1),
        }
    ).round(4)


def balanced_accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the mean recall of the classes that have images, from a confusion matrix."""
    images = matrix.sum(axis=1)
    return float((np.diag(matrix) / images.clip(min=1))[images > 0].mean())


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Return the mean F1 of the classes with images or predictions, from a confusion matrix."""
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float((2 * np.diag(matrix) / both.clip(min=1))[both > 0].mean())


def confusion_matrix(labels: Labels, predicted: Labels, k: int) -> NDArray[np.int64]:
    """Count images: `[k, k]`, rows true, columns predicted."""
    return np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)


def confusion_table(matrix: NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Return the matrix with a row per cell: `true`, `predicted`, `images`."""
    k = len(classes)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {"true": names.repeat(k), "predicted": np.tile(names, k), "images": matrix.ravel()}
    )


def top_k_accuracy(scores: Floats, labels: Labels, k: int) -> float:
    """Return how often the true class is among the k highest of `[N, classes]` scores."""
    own = scores[np.arange(len(labels)), labels][:, None]
    # Equal scores rank by label, as in argmax: equal scores for all classes are no success.
    before = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > own) | ((scores == own) & before)
    return float((ahead.sum(axis=1) < k).mean())


def brier_score(probabilities: Floats, labels: Labels) -> float:
    """Return the mean squared distance to the one-hot labels, summed over classes: 0 to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def mean_log_loss(logits: NDArray[np.float32], labels: Labels) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    log_probabilities = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def softmax(logits: NDArray[np.float32]) -> Floats:
    """Return probabilities `[N, classes]` in double precision."""
    return scipy.special.softmax(logits.astype(np.float64), axis=1)
