"""Clusters of images that a network finds similar."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

MEAN_SIZE = 100  # images of a cluster
MOST = 50  # clusters
ITERATIONS = 20


def find_clusters(
    features: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Group images by k-means (k-means++, doi:10.5555/1283383.1283494) on their features.

    Args:
        features: `[N, F]` of unit length.
        seed: Of the first centres.

    Returns:
        `[N]` the cluster of each image, and `[K]` the image of each cluster nearest to its centre;
        one cluster if there are fewer than twice `MEAN_SIZE` images, or no features. A cluster may
        be empty; its centre is then the first image, which is not in it.
    """
    if not features.shape[1]:
        return np.zeros(len(features), np.int32), np.zeros(1, np.int32)
    count = max(1, min(MOST, len(features) // MEAN_SIZE))
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings(action="ignore"):  # an empty cluster is no problem here
        centres, clusters = kmeans2(features, count, ITERATIONS, minit="++", rng=rng)
    # Of images at equal distance from the origin, the nearest has the largest inner product.
    members = clusters[:, None] == np.arange(count)
    nearest = np.where(members, features @ centres.T, -np.inf).argmax(axis=0)
    return clusters.astype(np.int32), nearest.astype(np.int32)
