"""Confidence intervals."""

import math

Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution


def wilson_interval(hits: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (doi:10.2307/2276774); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    # Rounding may put a proportion of 0 or 1 just outside its own interval.
    return max(0.0, min(share, low)), min(1.0, max(share, high))
