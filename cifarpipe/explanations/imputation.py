"""Noisy linear imputation: replace removed pixels by values that follow from their neighbours.

That of ROAD (arXiv:2202.00449): every removed pixel is the weighted mean of its neighbours, removed
ones included, so that all of them solve one linear system. Noise is added, since exact means would
show which pixels were removed.
"""

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

# The neighbours' weights and the noise are those of the paper's code,
# github.com/tleemann/road_evaluation, imputations.py.
DIRECT, DIAGONAL = 1 / 6, 1 / 12
# Rows down, columns to the right, and weight of the neighbours that come later in reading order.
LATER = ((0, 1, DIRECT), (1, -1, DIAGONAL), (1, 0, DIRECT), (1, 1, DIAGONAL))
NOISE = 0.01  # standard deviation, in units of the normalised images

VALUES_AT_ONCE = 2**22  # of the images that share their systems: 32 MiB in float64
Floats = NDArray[np.float64]


def impute(
    images: Tensor, removed: NDArray[np.bool_], *, seed: int, noise: float = NOISE
) -> Tensor:
    """Replace removed pixels by the weighted mean of their neighbours, plus noise.

    Neighbours outside the image do not count: at the border, the other weights are scaled to a sum
    of 1. Where nothing is kept, there is no solution: such an image becomes 0, the mean colour of
    normalised images.

    The values are computed in float64 on the CPU, so that they do not depend on the device: images
    on a GPU are copied once there and once back. One solution of n removed pixels in an image of
    width W takes up to n W² operations and 8 n W bytes: at most 0.3 MB for 32 × 32 pixels, and
    90 MB for 224 × 224.

    Args:
        images: `[N, C, H, W]` float32, normalised.
        removed: `[N, H, W]`, true for pixels to replace, in all channels.
        seed: Of the noise, which is drawn image by image.
        noise: Its standard deviation, in units of the images; 0 for none.

    Returns:
        `[N, C, H, W]`; pixels that are not removed are unchanged.

    Raises:
        ValueError: Not one mask of the images' size for each image.
    """
    expected = (len(images), *images.shape[2:])
    if removed.shape != expected:
        raise ValueError(
            f"removed has shape {removed.shape}, but images have shape {tuple(images.shape)}: "
            f"give one mask for each image, {expected}"
        )
    filled = np.array(images.detach().cpu().numpy(), order="C")
    at_once = max(1, VALUES_AT_ONCE // max(1, images[:1].numel()))
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        _fill(filled[part], removed[part])
    generator = torch.Generator().manual_seed(seed)
    for image, mask in zip(filled, removed, strict=True):
        draws = torch.randn(len(image), int(mask.sum()), generator=generator)
        image[:, mask] += noise * draws.numpy()
    return torch.from_numpy(filled).to(images.device)


def _fill(images: NDArray[np.float32], removed: NDArray[np.bool_]) -> None:
    """Replace removed pixels in place, without noise; solve once for each distinct mask."""
    known = np.where(removed[:, None], 0.0, images.astype(np.float64))
    known = np.pad(known, ((0, 0), (0, 0), (1, 1), (1, 1)))
    masks, which = np.unique(removed, axis=0, return_inverse=True)
    for number, mask in enumerate(masks):
        if not mask.any():
            continue
        (members,) = np.nonzero(which.reshape(-1) == number)
        values = 0.0 if mask.all() else _solution(known[members], mask)
        places = np.ix_(members, np.arange(images.shape[1]), np.flatnonzero(mask))
        images.reshape(*images.shape[:2], -1)[places] = values


def _solution(known: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Solve for the removed pixels of images with the same mask.

    With the pixels in reading order, one depends on none that is more than a row and a pixel away:
    the matrix is banded. It is symmetric, and positive definite if any pixel is kept.

    Args:
        known: `[M, C, H + 2, W + 2]`, with a margin; 0 in the margin and where pixels are removed.
        mask: `[H, W]`, true for the n removed pixels.

    Returns:
        `[M, C, n]`, in reading order.
    """
    own = np.arange(mask.sum())
    height, width = known.shape[2:]
    position = np.full((height, width), -1)  # in the system; -1 for pixels that are not removed
    position[1:-1, 1:-1][mask] = own
    cells = np.flatnonzero(position >= 0)
    steps = [(row * width + column, weight) for row, column, weight in LATER]

    def weighted_sum(values: Floats) -> Floats:
        """Return the weighted sum of each removed pixel's neighbours, `[..., n]`."""
        flat = values.reshape(*values.shape[:-2], -1)
        total = np.zeros((*flat.shape[:-1], len(cells)))
        for step, weight in steps:
            total += weight * (flat.take(cells + step, axis=-1) + flat.take(cells - step, axis=-1))
        return total

    others = [(position.ravel()[cells + step], weight) for step, weight in steps]
    bandwidth = max(0, *((other - own).max() for other, _ in others))
    bands = np.zeros((len(own), bandwidth + 1))  # transposed: in LAPACK's order in memory
    bands[:, 0] = weighted_sum(np.pad(np.ones(mask.shape), 1))
    for other, weight in others:
        coupled = other >= 0
        bands[coupled, (other - own)[coupled]] = -weight
    sums = weighted_sum(known).reshape(-1, len(own))
    solution = scipy.linalg.solveh_banded(bands.T, sums.T, lower=True)
    return np.asarray(solution).T.reshape(*known.shape[:2], len(own))
