"""Faithfulness: do maps show what a network uses?

Tested against known objects, by removing pixels, and by randomising the weights. Every metric is
compared with uninformative baselines on the same coarse grid: random maps, and maps that are
highest in the centre.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.gradcam import upsample
from cifarpipe.explanations.imputation import impute
from cifarpipe.results.maps import Maps, without_evidence

REMOVED = (0.2, 0.5, 0.8)  # fractions of the pixels, for ROAD
STEPS = 8  # of deletion and insertion
Floats = NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]


def random_maps(maps: Maps, rng: np.random.Generator) -> Maps:
    """Return random maps of the same shape."""
    return rng.standard_normal(maps.shape).astype(np.float32)


def centre_maps(maps: Maps) -> Maps:
    """Return maps of the same shape with a central Gaussian; its sd is a quarter of the side."""
    rows, columns = (
        np.exp(-(((np.arange(length) + 0.5) / length - 0.5) ** 2) / (2 * 0.25**2))
        for length in maps.shape[1:]
    )
    middle = np.outer(rows, columns).astype(np.float32)
    return np.broadcast_to(middle, maps.shape).copy()


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


def energy_inside(maps: Maps, masks: NDArray[np.bool_]) -> Floats:
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


def road(predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int) -> Floats:
    """Score maps by removing pixels and measuring the class's probability (ROAD, arXiv:2202.00449).

    Removed pixels are imputed from their neighbours, with a little noise, so that the hole itself
    gives no hint.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.
        seed: Of the noise.

    Returns:
        `[N]`: the class's probability with the least important pixels removed, minus that with the
        most important pixels removed, averaged over three fractions of the pixels. Above 0 the map
        ranks pixels correctly.
    """
    ranks = _ranks(upsample(maps, batch.shape[-1])).reshape(len(batch), *batch.shape[2:])
    total = np.zeros(len(batch))
    for part in REMOVED:
        count = round(part * batch.shape[-1] ** 2)
        least, most = ranks < count, ranks >= batch.shape[-1] ** 2 - count
        without_least = _probability(predict, impute(batch, least, seed=seed), classes)
        without_most = _probability(predict, impute(batch, most, seed=seed), classes)
        total += without_least - without_most
    return total / len(REMOVED)


def deletion_insertion(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor
) -> tuple[Floats, Floats]:
    """Score maps by deleting, or inserting, more and more pixels (RISE, arXiv:1806.07421).

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised, so that 0 is the mean colour.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.

    Returns:
        Areas under the probability curves, `[N]` each: `deletion`, with the most important pixels
        deleted first (lower is better); `insertion`, starting from a blurred image, with the most
        important pixels inserted first (higher is better).
    """
    ranks = torch.from_numpy(_ranks(upsample(maps, batch.shape[-1])))
    importance = ranks.view(len(batch), 1, *batch.shape[2:]).to(batch.device)
    blurred = _blur(batch)
    deleted, inserted = [], []
    for step in range(STEPS + 1):
        chosen = importance >= batch.shape[-1] ** 2 * (1 - step / STEPS)
        deleted.append(_probability(predict, batch.masked_fill(chosen, 0.0), classes))
        inserted.append(_probability(predict, torch.where(chosen, batch, blurred), classes))
    return _area(deleted), _area(inserted)


def rank_correlation(maps: Maps, others: Maps) -> Floats:
    """Return Spearman's correlation of each pair of maps; 0 if one of them is constant."""
    return np.array(
        [
            0.0 if np.ptp(one) == 0 or np.ptp(two) == 0 else scipy.stats.spearmanr(one, two)[0]
            for one, two in zip(map(np.ravel, maps), map(np.ravel, others), strict=True)
        ]
    )


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """Return mean and 95% interval (Student's t); infinite ends for one value, NaN for none."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, float("-inf"), float("inf")
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))
    return mean, mean - half, mean + half


def _ranks(maps: Maps) -> NDArray[np.int64]:
    """Rank each map's pixels, `[N, S × S]`: 0 is the least important; ties rank by position."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    ranks = np.empty(flat.shape, np.int64)
    order = flat.argsort(axis=1, kind="stable")
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks


def _area(curve: list[Floats]) -> Floats:
    return np.asarray(np.trapezoid(curve, dx=1 / STEPS, axis=0))


@torch.no_grad()
def _probability(predict: Predict, batch: Tensor, classes: Tensor) -> Floats:
    probabilities = predict(batch).double().softmax(dim=1).cpu()
    return probabilities.gather(1, classes.cpu()[:, None])[:, 0].numpy()


def _blur(batch: Tensor) -> Tensor:
    """Blur beyond recognition: a Gaussian whose sd is a sixth of the image."""
    size = batch.shape[-1]
    deviation = size / 6
    reach = size // 2
    places = torch.arange(-reach, reach + 1, device=batch.device, dtype=batch.dtype)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(batch.shape[1], 1, -1)
    padded = F.pad(batch, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=batch.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=batch.shape[1])
