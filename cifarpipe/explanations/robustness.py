"""Robustness: do maps stay the same if the image changes a little?"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.results.maps import Maps

DRAWS = 5  # of the noise


def max_sensitivity(
    make_maps: Callable[[Tensor], Maps], batch: Tensor, maps: Maps, radius: Tensor, *, seed: int
) -> NDArray[np.float64]:
    """Return the largest relative change of each map under small noise (arXiv:1901.09392).

    Args:
        make_maps: Maps `[N, h, w]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]`, those of `batch`.
        radius: Largest absolute value of the uniform noise, in units of `batch`; its shape can be
            expanded to that of an image.
        seed: Of the noise.

    Returns:
        `[N]`: the largest of `DRAWS` Euclidean distances, divided by the map's norm; lower is
        better. For a map of zeros, the distance itself.
    """
    generator = torch.Generator().manual_seed(seed)
    most = np.zeros(len(batch))
    for _ in range(DRAWS):
        noise = 2 * torch.rand(batch.shape, generator=generator) - 1
        others = make_maps(batch + radius * noise.to(batch.device))
        most = np.maximum(most, _norm(others - maps))
    norm = _norm(maps)
    return most / np.where(norm > 0, norm, 1)


def _norm(maps: Maps) -> NDArray[np.float64]:
    return np.sqrt(np.square(maps, dtype=np.float64).sum(axis=(1, 2)))
