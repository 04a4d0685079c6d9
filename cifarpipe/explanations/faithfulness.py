"""Faithfulness: do maps rank pixels by what a network uses? Tested by removing pixels."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

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


def saco(predict: Predict, batch: Tensor, maps: Maps, classes: Tensor) -> Floats:
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

    Returns:
        `[N]` from -1 (all pairs against the map) to 1 (all for it); 0 for a constant map.
    """
    size = batch.shape[-1]
    large = upsample(maps, size)
    group = _ranks(large) * GROUPS // size**2  # the last has most evidence
    flat = large.reshape(group.shape).astype(np.float64)
    removed_by = torch.from_numpy(group).view(len(batch), 1, size, size).to(batch.device)
    mean_colour = batch.mean(dim=(2, 3), keepdim=True)
    evidence, probability = np.empty((2, GROUPS, len(batch)))
    for number in range(GROUPS):
        evidence[number] = flat.mean(axis=1, where=group == number)
        without = torch.where(removed_by == number, mean_colour, batch)
        probability[number] = _probability(predict, without, classes)
    weight = evidence[:, None] - evidence  # [groups, groups, N]
    # Removing the group with more evidence should leave the lower probability.
    agrees = probability[:, None] <= probability
    more = np.tri(GROUPS, k=-1, dtype=bool)  # pairs whose first group has more evidence
    agreement = np.where(agrees, weight, -weight)[more].sum(axis=0)
    total = weight[more].sum(axis=0)
    # Upsampling may leave tiny differences in a constant map.
    varies = np.ptp(maps.reshape(len(maps), -1), axis=1) > 0
    return np.divide(agreement, total, out=np.zeros(len(batch)), where=varies & (total > 0))


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
