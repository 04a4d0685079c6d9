"""What a network finds similar, on disk: nearest training images, and clusters of test images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarpipe.results.arrays import load_arrays, save_arrays


@dataclass(frozen=True)
class Neighbours:
    """By cosine similarity of the features that the network's head reads.

    Of a network without features: no nearest images (k = 0), no votes, one cluster.
    """

    nearest: NDArray[np.int32]
    """`[N, k]` positions, in the train split, of the images most similar to each test image."""
    similarity: NDArray[np.float32]
    """`[N, k]` their cosine similarities, descending."""
    votes: NDArray[np.uint8]
    """`[T, classes]` labels of the training images most similar to each training image."""
    clusters: NDArray[np.int32]
    """`[N]` the cluster of each test image."""
    centres: NDArray[np.int32]
    """`[K]` position of the test image nearest to the centre of each cluster."""


def save_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Write everything, or nothing."""
    save_arrays(path, vars(neighbours))


def load_neighbours(path: Path) -> Neighbours:
    """Read everything.

    Raises:
        UserError: The file is missing or damaged.
    """
    names = ("nearest", "similarity", "votes", "clusters", "centres")
    return Neighbours(*load_arrays(path, names))
