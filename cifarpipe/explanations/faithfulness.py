"""Faithfulness: do maps rank pixels by what a network uses? Tested by removing pixels."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.baselines import random_maps
from cifarpipe.explanations.imputation import impute
from cifarpipe.explanations.upsampling import upsample
from cifarpipe.results.maps import Maps

REMOVED = (0.2, 0.5, 0.8)  # fractions of the pixels, for ROAD
STEPS = 8  # of deletion and insertion
GROUPS = 10  # of pixels, for SaCo
Floats = NDArray[np.float64]
Predict = Callable[[Tensor], Tensor]


def road(predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int) -> Floats:
    """Score maps by removing pixels and measuring the class's probability (ROAD, arXiv:2202.00449).

    Removed pixels are imputed from their neighbours, with a little noise, so that the hole itself
    gives no hint.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.
        seed: Of the noise, and of the order of pixels with equal values.

    Returns:
        `[N]`: the class's probability with the least important pixels removed, minus that with the
        most important pixels removed, averaged over three fractions of the pixels. Above 0 the map
        ranks pixels correctly.
    """
    _, ranks = _ranked(maps, batch.shape[-1], seed)
    total = np.zeros(len(batch))
    for part in REMOVED:
        count = round(part * batch.shape[-1] ** 2)
        least, most = ranks < count, ranks >= batch.shape[-1] ** 2 - count
        without_least = _probability(predict, impute(batch, least, seed=seed), classes)
        without_most = _probability(predict, impute(batch, most, seed=seed), classes)
        total += without_least - without_most
    return total / len(REMOVED)


def deletion_insertion(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> tuple[Floats, Floats]:
    """Score maps by deleting, or inserting, more and more pixels (RISE, arXiv:1806.07421).

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised, so that 0 is the mean colour.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.
        seed: Of the order of pixels with equal values.

    Returns:
        Areas under the probability curves, `[N]` each: `deletion`, with the most important pixels
        deleted first (lower is better); `insertion`, starting from a blurred image, with the most
        important pixels inserted first (higher is better).
    """
    _, ranks = _ranked(maps, batch.shape[-1], seed)
    importance = torch.from_numpy(ranks)[:, None].to(batch.device)
    blurred = _blur(batch)
    deleted, inserted = [], []
    for step in range(STEPS + 1):
        chosen = importance >= batch.shape[-1] ** 2 * (1 - step / STEPS)
        deleted.append(_probability(predict, batch.masked_fill(chosen, 0.0), classes))
        inserted.append(_probability(predict, torch.where(chosen, batch, blurred), classes))
    return _area(deleted), _area(inserted)


def saco(predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int) -> Floats:
    """Score maps by removing groups of pixels one at a time (SaCo, arXiv:2404.01415).

    The pixels are ranked and split into `GROUPS` of equal size, each of which is removed alone:
    replaced by the image's mean colour. Of every two groups, the one with more evidence should
    matter at least as much to the class's probability. Such a pair counts for the map, any other
    against it, weighted by the difference in evidence.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]`.
        classes: `[N]` whose probability is followed.
        seed: Of the order of pixels with equal values.

    Returns:
        `[N]` from -1 (all pairs against the map) to 1 (all for it); 0 for a constant map.
    """
    size = batch.shape[-1]
    large, ranks = _ranked(maps, size, seed)
    group = ranks * GROUPS // size**2  # the last has most evidence
    removed_by = torch.from_numpy(group)[:, None].to(batch.device)
    mean_colour = batch.mean(dim=(2, 3), keepdim=True)
    evidence, probability = np.empty((2, GROUPS, len(batch)))
    for number in range(GROUPS):
        evidence[number] = large.mean(axis=(1, 2), where=group == number, dtype=np.float64)
        without = torch.where(removed_by == number, mean_colour, batch)
        probability[number] = _probability(predict, without, classes)
    weight = evidence[:, None] - evidence  # [groups, groups, N]
    # Removing the group with more evidence should leave the lower probability.
    agrees = probability[:, None] <= probability
    more = np.tri(GROUPS, k=-1, dtype=bool)  # pairs whose first group has more evidence
    agreement = np.where(agrees, weight, -weight)[more].sum(axis=0)
    total = weight[more].sum(axis=0)
    return np.divide(agreement, total, out=np.zeros(len(batch)), where=total > 0)


def _ranked(maps: Maps, size: int, seed: int) -> tuple[Maps, NDArray[np.int64]]:
    """Return maps at the size of the image, `[N, size, size]`, and the ranks of their pixels.

    Rank 0 is the least important. Equal values are ranked by a random map, as the baseline is, so
    that a map that is the same everywhere scores like it. By their position, such a map would test
    whether the bottom of an image matters more than its top; pixel by pixel at random, it would be
    removed in specks.
    """
    # Upsampling may leave tiny differences in a map that is the same everywhere.
    varies = np.ptp(maps, axis=(1, 2), keepdims=True) != 0
    large = upsample(np.where(varies, maps, np.float32(0)), size)
    rng = np.random.default_rng([seed, 1])  # apart from the baseline's draws
    flat, noise = (
        each.reshape(len(maps), size**2) for each in (large, upsample(random_maps(maps, rng), size))
    )
    order = np.lexsort((rng.random(flat.shape), noise, flat))
    ranks = np.empty(flat.shape, np.int64)
    np.put_along_axis(ranks, order, np.arange(size**2)[None], axis=1)
    return large, ranks.reshape(large.shape)


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
