"""Calibration: does a network's confidence match its accuracy?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax

from cifarpipe.results.intervals import wilson_interval

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
MAX_TEMPERATURE = 20.0  # the temperature is searched between 1/20 and 20
CHI_SQUARED = 3.841458820694124  # 95th percentile, one degree of freedom


class Temperature(NamedTuple):
    """A temperature that divides logits, with its 95% interval."""

    value: float
    low: float
    high: float


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

    Images of equal confidence share their mean, so that their order does not matter.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.
        bins: Number of bins; the first ones have one image more if `bins` does not divide N.
    """
    confidence, hits = _confidence_and_hits(probabilities, labels)
    _, level, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    gaps = np.bincount(level, weights=hits - confidence) / counts
    parts = np.array_split(gaps[np.sort(level)], min(bins, len(labels)))
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


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> Temperature | None:
    """Return the temperature that minimises the log loss of `logits / temperature`.

    Temperature scaling, arXiv:1706.04599. The interval contains all temperatures that a
    likelihood-ratio test does not reject (doi:10.1214/aoms/1177732360).

    Args:
        logits: `[N, classes]` of images used neither for training nor for the evaluation.
        labels: `[N]`.

    Returns:
        The temperature; None without images, or with one class.
    """
    if not len(labels) or logits.shape[1] == 1:
        return None
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, labels].sum())

    limit = np.log(MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})

    def excess(log_temperature: float) -> float:
        return 2 * (loss(log_temperature) - found.fun) - CHI_SQUARED

    ends = (_root(excess, found.x, end) for end in (-limit, limit))
    return Temperature(*(float(np.exp(log)) for log in (found.x, *ends)))


def _root(function: Callable[[float], float], inside: float, end: float) -> float:
    """Return where a function that is negative `inside` becomes 0, or `end` if it does not."""
    return brentq(function, inside, end) if function(end) > 0 else end


def _confidence_and_hits(probabilities: Floats, labels: Labels) -> tuple[Floats, NDArray[np.bool_]]:
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _bin(confidence: Floats, bins: int) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
