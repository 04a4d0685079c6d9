"""Calibration errors computed by plain loops."""

import numpy as np


def naive_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Return the expected calibration error with equal-width bins."""
    error = 0.0
    for i in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if i / bins < row.max() <= (i + 1) / bins
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error


def naive_equal_mass_error(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Return the calibration error with equally many images per bin."""
    rows = sorted(
        zip(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, strict=True),
        key=lambda row: row[0],
    )
    error = 0.0
    for i in range(bins):
        more = len(rows) % bins  # the first bins have one more
        size = len(rows) // bins
        start = i * size + min(i, more)
        part = np.array(rows[start : start + size + (i < more)])
        if len(part):
            error += len(part) / len(rows) * abs(part[:, 0].mean() - part[:, 1].mean())
    return error
