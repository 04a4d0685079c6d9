"""Calibration: does a network's confidence match its accuracy?"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cifarpipe.results.intervals import wilson_interval

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
MAX_TEMPERATURE = 20.0  # the temperature is searched between 1/20 and 20


def calibration_error(probabilities: Floats, labels: Labels, bins: int) -> float:
    """Return the expected calibration error with equal-width bins (arXiv:1706.04599).

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.
        bins: Number of bins of confidence, each open below and closed above.
    """
    confidence, hits = _confidence_and_hits(probabilities, labels)
    # |accuracy − confidence| of each bin, weighted by its images: the counts cancel.
    gaps = np.bincount(_bin(confidence, bins), weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def equal_mass_calibration_error(probabilities: Floats, labels: Labels, bins: int) -> float:
    """Return the calibration error with equally many images per bin (arXiv:1904.01685).

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.
        bins: Number of bins; the first ones have one image more if `bins` does not divide N.
    """
    confidence, hits = _confidence_and_hits(probabilities, labels)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split((hits - confidence)[order], min(bins, len(order)))
    return float(sum(abs(part.sum()) for part in parts) / len(labels))


def reliability_table(probabilities: Floats, labels: Labels, bins: int) -> pd.DataFrame:
    """Return a row per bin of confidence that contains images.

    Columns `low` and `high` (its ends), `images`, `confidence` (its mean), `accuracy` with its 95%
    interval `accuracy_low` and `accuracy_high`.
    """
    confidence, hits = _confidence_and_hits(probabilities, labels)
    which = _bin(confidence, bins)
    rows = []
    for number in np.unique(which):
        inside = which == number
        images, right = int(inside.sum()), int(hits[inside].sum())
        low, high = wilson_interval(right, images)
        rows.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "images": images,
                "confidence": confidence[inside].mean(),
                "accuracy": right / images,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return pd.DataFrame(rows).round(4)


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """Return the temperature that minimises the log loss of `logits / temperature`.

    Temperature scaling, arXiv:1706.04599.

    Args:
        logits: `[N, classes]` of images used neither for training nor for the evaluation.
        labels: `[N]`.

    Returns:
        The temperature; 1 without images.
    """
    if not len(labels):
        return 1.0
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, labels].mean())

    limit = np.log(MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _confidence_and_hits(probabilities: Floats, labels: Labels) -> tuple[Floats, NDArray[np.bool_]]:
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _bin(confidence: Floats, bins: int) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
