"""Complexity: is the evidence concentrated in a few places, or spread over the image?"""

import numpy as np
from numpy.typing import NDArray

from cifarpipe.results.maps import Maps


def sparseness(maps: Maps) -> NDArray[np.float64]:
    """Return the Gini index of each map's absolute values (arXiv:1810.06583).

    Args:
        maps: `[N, h, w]`.

    Returns:
        `[N]`: 0 if all values are equal, almost 1 if all evidence is in one place; 0 for a map of
        zeros.
    """
    values = np.sort(abs(maps.reshape(len(maps), -1)).astype(np.float64), axis=1)
    places = values.shape[1]
    weights = 2 * np.arange(1, places + 1) - places - 1
    total = places * values.sum(axis=1)
    return np.divide(values @ weights, total, out=np.zeros(len(maps)), where=total > 0)
