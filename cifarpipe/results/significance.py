"""Significance of many comparisons."""

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # significance level of every test


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values for their number (Holm, doi:10.2307/4615733): reject those below the level.

    The chance that any true hypothesis is rejected then is at most the level.

    Args:
        p: `[N]` of all hypotheses that are tested.

    Returns:
        `[N]` corrected p-values, at most 1.
    """
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(factors * p[order]).clip(max=1)
    return corrected
