"""What a network finds similar, by the features that its head reads."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.clusters import find_clusters
from cifarpipe.explanations.embedding import Embedding
from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Prepared

NEAREST = 5  # training images of each test image
VOTERS = 50  # nearest other training images whose labels vote on a training image …
FEWEST = 10  # … and at least; images of classes too small for that are not judged
ROWS = 512  # compared with all training images at a time


def find_neighbours(embedding: Embedding, data: Prepared, *, seed: int) -> Neighbours:
    """Find the nearest training images of all images, and clusters of the test images.

    The search is exact, by cosine similarity. A training image is not its own neighbour.

    Args:
        embedding: Of the data.
        data: With the labels.
        seed: Of the clusters.
    """
    test, train = embedding.test, embedding.train
    nearest, similarity = search(test, train, NEAREST)
    votes = neighbour_votes(train, data.train.labels, len(data.classes))
    clusters, centres = find_clusters(test.cpu().numpy(), seed)
    return Neighbours(nearest.astype(np.int32), similarity, votes, clusters, centres)


def search(
    queries: Tensor, base: Tensor, count: int, *, skip_itself: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of `base` most similar to each query, the most similar first.

    Args:
        queries: `[N, features]` of unit length.
        base: `[M, features]` of unit length.
        count: How many; fewer if there are not so many rows.
        skip_itself: The queries are the rows of `base`; each is no answer to itself.

    Returns:
        `[N, count]` rows, and their cosine similarities; `[N, 0]` without features.
    """
    count = min(count, len(base) - skip_itself) if base.shape[1] else 0
    rows, similarities = [], []
    for start in range(0, len(queries), ROWS):
        product = queries[start : start + ROWS] @ base.T
        if skip_itself:
            product.diagonal(start).fill_(-torch.inf)
        top = product.topk(count, dim=1)
        rows.append(top.indices)
        similarities.append(top.values)
    return torch.cat(rows).cpu().numpy(), torch.cat(similarities).cpu().numpy()


def neighbour_votes(features: Tensor, labels: NDArray[np.int64], classes: int) -> NDArray[np.uint8]:
    """Count the labels of each image's nearest other images.

    `VOTERS` of them vote, or half as many as the image's class has images, if that is fewer: else a
    small class would be outvoted by others, even if all its images lie together. If that is fewer
    than `FEWEST`, none do, since a few votes say little.

    Args:
        features: `[N, features]` of unit length.
        labels: `[N]`.
        classes: Their number.

    Returns:
        `[N, classes]`; only zeros without votes, and without features.
    """
    voters, _ = search(features, features, VOTERS, skip_itself=True)
    halves = np.bincount(labels, minlength=classes) // 2
    voting = np.where(halves >= FEWEST, halves, 0)[labels]
    votes = np.zeros((len(labels), classes), np.uint8)
    for rank, neighbours in enumerate(voters.T):
        rows = np.flatnonzero(rank < voting)
        votes[rows, labels[neighbours[rows]]] += 1
    return votes
