"""Tests of significance, and their correction for many comparisons."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, fisher_exact

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


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (doi:10.1007/BF02295996).

    Args:
        only_first: Images that only the first of two classifiers predicts correctly.
        only_second: Images that only the second one predicts correctly.
    """
    differ = only_first + only_second
    return float(binomtest(only_first, differ).pvalue) if differ else 1.0


def fisher(errors: tuple[int, int], images: tuple[int, int]) -> float:
    """Return the two-sided p-value of Fisher's exact test of two accuracies (doi:10.2307/2340521).

    It assumes different images; for predictions of the same images it finds only larger
    differences than `mcnemar`.

    Args:
        errors: Number of errors of each classifier.
        images: Number of images of each.
    """
    correct = [total - wrong for total, wrong in zip(images, errors, strict=True)]
    return float(fisher_exact([errors, correct]).pvalue)
