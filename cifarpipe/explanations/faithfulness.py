"""Whether maps show what a network used: against known objects, by removing pixels, by forgetting.

Each figure stands beside what maps score that know nothing, of the same coarse grid: one drawn at
random and one that is highest in the middle.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.gradcam import Maps, enlarge, without_evidence

REMOVED = (0.2, 0.5, 0.8)  # parts of the pixels, for ROAD
STEPS = 8  # of deletion and insertion
Floats = NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]


def random_maps(maps: Maps, rng: np.random.Generator) -> Maps:
    """Return maps of the same shape that know nothing."""
    return rng.standard_normal(maps.shape).astype(np.float32)


def centre_maps(maps: Maps) -> Maps:
    """Return maps of the same shape that are highest in the middle: a Gaussian, sd a quarter."""
    rows, columns = (
        np.exp(-(((np.arange(length) + 0.5) / length - 0.5) ** 2) / (2 * 0.25**2))
        for length in maps.shape[1:]
    )
    middle = np.outer(rows, columns).astype(np.float32)
    return np.broadcast_to(middle, maps.shape).copy()


@dataclass(frozen=True)
class Pointing:
    """How often a map's highest point lies on the object (doi:10.1007/s11263-017-1059-x)."""

    hits: int
    images: int
    """Of which those without evidence are misses."""
    centre: float
    """What a map would score that always points at the middle."""
    random: float
    """What one would score that points anywhere: the objects' mean share of the picture."""


def pointing_game(maps: Maps, masks: NDArray[np.bool_]) -> Pointing:
    """Compare maps with the objects' masks, no tolerance around the mask.

    The centre's score is that of a Gaussian in the middle, or of any map highest there.

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.
    """
    if not len(maps):
        return Pointing(hits=0, images=0, centre=0.0, random=0.0)
    size = masks.shape[1]
    big = enlarge(maps, size)
    rows, columns = np.unravel_index(big.reshape(len(big), -1).argmax(axis=1), (size, size))
    hits = masks[np.arange(len(big)), rows, columns] & ~without_evidence(maps)
    # The middle of an even size is the corner of four pixels.
    middle = slice((size - 1) // 2, size // 2 + 1)
    return Pointing(
        hits=int(hits.sum()),
        images=len(maps),
        centre=float(masks[:, middle, middle].mean()),
        random=float(masks.mean()),
    )


def energy_inside(maps: Maps, masks: NDArray[np.bool_]) -> Floats:
    """Return which part of each map's positive evidence lies on the object (arXiv:1910.01279).

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.

    Returns:
        `[N]`; 0 for a map without evidence.
    """
    big = np.maximum(enlarge(maps, masks.shape[1]), 0).astype(np.float64)
    whole = big.sum(axis=(1, 2))
    inside = (big * masks).sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)


def road(predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int) -> Floats:
    """Score maps by removing pixels and looking what is left of a class (ROAD, arXiv:2202.00449).

    The removed pixels are filled in from their neighbours, with a little noise, so that the hole
    itself says nothing.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.
        seed: Of the noise.

    Returns:
        `[N]`: the mean, over three parts of the pixels, of the class's probability when the least
        important are removed, less that when the most important are; above 0: the map knows which
        pixels matter.
    """
    ranks = _ranks(enlarge(maps, batch.shape[-1]))
    total = np.zeros(len(batch))
    for part in REMOVED:
        count = round(part * batch.shape[-1] ** 2)
        least, most = ranks < count, ranks >= ranks.shape[1] - count
        kept_best = _probability(predict, _filled(batch, least, seed), classes)
        kept_worst = _probability(predict, _filled(batch, most, seed), classes)
        total += kept_best - kept_worst
    return total / len(REMOVED)


def deletion_insertion(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor
) -> tuple[Floats, Floats]:
    """Score maps by blanking, or showing, more and more pixels (RISE, arXiv:1806.07421).

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised: 0 is the mean colour.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.

    Returns:
        Areas under the curves of the probability, `[N]` each: `deletion`, of pixels blanked from
        the most important on (small is good); `insertion`, of a blurred picture whose most
        important pixels become sharp first (large is good).
    """
    ranks = torch.from_numpy(_ranks(enlarge(maps, batch.shape[-1])))
    importance = ranks.view(len(batch), 1, *batch.shape[2:]).to(batch.device)
    blurred = _blur(batch)
    deleted, inserted = [], []
    for step in range(STEPS + 1):
        chosen = importance >= batch.shape[-1] ** 2 * (1 - step / STEPS)
        deleted.append(_probability(predict, batch.masked_fill(chosen, 0.0), classes))
        inserted.append(_probability(predict, torch.where(chosen, batch, blurred), classes))
    return _area(deleted), _area(inserted)


def rank_correlation(maps: Maps, others: Maps) -> Floats:
    """Return Spearman's correlation of each map with its other one; 0 where one is flat."""
    return np.array(
        [
            0.0 if np.ptp(one) == 0 or np.ptp(two) == 0 else scipy.stats.spearmanr(one, two)[0]
            for one, two in zip(map(np.ravel, maps), map(np.ravel, others), strict=True)
        ]
    )


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """Return a mean with its 95% interval by Student's t, infinite for one value; NaN for none."""
    if not len(values):
        return math.nan, math.nan, math.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, float("-inf"), float("inf")
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values))
    return mean, mean - half, mean + half


def _ranks(big: Maps) -> NDArray[np.int64]:
    """Number each map's pixels `[N, S × S]`, the least important 0; ties in the order of places."""
    flat = big.reshape(len(big), big.shape[1] * big.shape[2])
    ranks = np.empty(flat.shape, np.int64)
    order = flat.argsort(axis=1, kind="stable")
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks


def _filled(batch: Tensor, removed: NDArray[np.bool_], seed: int) -> Tensor:
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer  # after gradcam's quick import

    fill = NoisyLinearImputer()
    kept = torch.from_numpy(~removed).float().view(len(batch), *batch.shape[2:])
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how it gives tensors to numpy
        torch.manual_seed(seed)
        pictures = [fill(picture, mask) for picture, mask in zip(batch.cpu(), kept, strict=True)]
    return torch.stack(pictures).to(batch.device)


def _area(curve: list[Floats]) -> Floats:
    return np.asarray(np.trapezoid(curve, dx=1 / STEPS, axis=0))


@torch.no_grad()
def _probability(predict: Predict, batch: Tensor, classes: Tensor) -> Floats:
    chances = predict(batch).double().softmax(dim=1).cpu()
    return chances.gather(1, classes.cpu()[:, None])[:, 0].numpy()


def _blur(batch: Tensor) -> Tensor:
    """Blur with a Gaussian, sd a sixth of the picture, so that nothing can be recognised."""
    size = batch.shape[-1]
    deviation = size / 6
    reach = size // 2
    places = torch.arange(-reach, reach + 1, device=batch.device, dtype=batch.dtype)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(batch.shape[1], 1, -1)
    padded = F.pad(batch, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=batch.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=batch.shape[1])
