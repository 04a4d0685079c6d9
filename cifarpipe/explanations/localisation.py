"""Localisation: do maps point at the object, where its mask is known?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifarpipe.explanations.upsampling import upsample
from cifarpipe.results.maps import Maps, without_evidence


@dataclass(frozen=True)
class Pointing:
    """Whether a map's maximum lies on the object (doi:10.1007/s11263-017-1059-x), by image."""

    hits: NDArray[np.bool_]
    """`[N]`; a map without evidence is a miss."""
    centre: NDArray[np.float64]
    """`[N]` the score of a map that points at the centre."""


def pointing_game(maps: Maps, masks: NDArray[np.bool_]) -> Pointing:
    """Compare maps with the objects' masks, without tolerance around the mask.

    The centre of an even size is the corner of four pixels, so its score may be a fraction.

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.
    """
    size = masks.shape[1]
    large = upsample(maps, size)
    rows, columns = np.unravel_index(large.reshape(len(large), -1).argmax(axis=1), (size, size))
    hits = masks[np.arange(len(large)), rows, columns] & ~without_evidence(maps)
    middle = slice((size - 1) // 2, size // 2 + 1)
    return Pointing(
        hits=hits,
        centre=masks[:, middle, middle].mean(axis=(1, 2)),
    )


def energy_inside(maps: Maps, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the fraction of each map's positive evidence on the object (arXiv:1910.01279).

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.

    Returns:
        `[N]`; 0 for a map without evidence.
    """
    large = np.maximum(upsample(maps, masks.shape[1]), 0).astype(np.float64)
    whole = large.sum(axis=(1, 2))
    inside = (large * masks).sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)
