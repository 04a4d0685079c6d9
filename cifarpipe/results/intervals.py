"""Confidence intervals."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a proportion (doi:10.2307/2276774); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share, z = hits / n, Z_95
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    # Rounding may put a proportion of 0 or 1 just outside its own interval.
    return max(0.0, min(share, low)), min(1.0, max(share, high))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return mean and 95% interval (Student's t); infinite ends for one value, NaN for none."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, -math.inf, math.inf
    freedom = len(values) - 1
    half = float(stdtrit(freedom, 0.975) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half
