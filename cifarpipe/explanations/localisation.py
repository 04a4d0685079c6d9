"""Localisation: do maps point at the object, where its mask is known?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifarpipe.explanations.upsampling import upsample
from cifarpipe.results.maps import Maps, without_evidence


@dataclass(frozen=True)
class Pointing:
    """How often a map's maximum lies on the object (doi:10.1007/s11263-017-1059-x)."""

    hits: int
    images: int
    """Maps without evidence count as misses."""
    centre: float
    """The score of maps that always point at the centre."""
    random: float
    """The score of maps that point anywhere: the objects' mean fraction of the image."""


def pointing_game(maps: Maps, masks: NDArray[np.bool_]) -> Pointing:
    """Compare maps with the objects' masks, without tolerance around the mask.

    The centre's score is that of any map whose maximum is in the centre.

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.
    """
    if not len(maps):
        return Pointing(hits=0, images=0, centre=0.0, random=0.0)
    size = masks.shape[1]
    large = upsample(maps, size)
    rows, columns = np.unravel_index(large.reshape(len(large), -1).argmax(axis=1), (size, size))
    hits = masks[np.arange(len(large)), rows, columns] & ~without_evidence(maps)
    # The centre of an even size is the corner of four pixels.
    middle = slice((size - 1) // 2, size // 2 + 1)
    return Pointing(
        hits=int(hits.sum()),
        images=len(maps),
        centre=float(masks[:, middle, middle].mean()),
        random=float(masks.mean()),
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
