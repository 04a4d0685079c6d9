"""What a network finds similar, by the features that its head reads."""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.explanations.clusters import find_clusters
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Prepared, Split

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

NEAREST = 5  # training images of each test image
VOTERS = 50  # nearest other training images, whose labels vote on a training image
ROWS = 512  # compared with all training images at a time


class Embedding(nn.Module):
    """The features that a network's head reads, scaled to unit length."""

    def __init__(self, model: "Classifier") -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `[B, 3, S, S]` → `[B, features]`."""
        read: list[Tensor] = []
        handle = self.model.head.register_forward_pre_hook(
            lambda _head, inputs: read.append(*inputs)
        )
        try:
            self.model(images)
        finally:
            handle.remove()
        return F.normalize(read[0].flatten(1).float(), dim=1)


def find_neighbours(
    model: "Classifier",
    origin: Origin,
    data: Prepared,
    *,
    batch_size: int,
    seed: int,
    progress: str,
) -> Neighbours:
    """Find the nearest training images of all images, and clusters of the test images.

    The search is exact, by cosine similarity. A training image is not its own neighbour.

    Args:
        model: In evaluation mode.
        origin: Of its weights.
        data: The data it was trained on.
        batch_size: Images per forward pass.
        seed: Of the clusters.
        progress: Label of the progress bars.
    """

    def embed(split: Split, name: str) -> Tensor:
        device = next(model.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in (origin.mean, origin.std))
        images = ImageStore(split.images, device)
        return compute_logits(
            Embedding(model), images, mean=mean, std=std, batch_size=batch_size,
            progress=f"{progress}: features of {name} images",
        )  # fmt: skip

    train, test = embed(data.train, "training"), embed(data.test, "test")
    nearest, similarity = search(test, train, NEAREST)
    voters, _ = search(train, train, VOTERS, skip_itself=True)
    votes = count_labels(data.train.labels[voters], len(data.classes))
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
        `[N, count]` rows, and their cosine similarities.
    """
    count = min(count, len(base) - skip_itself)
    rows, similarities = [], []
    for start in range(0, len(queries), ROWS):
        product = queries[start : start + ROWS] @ base.T
        if skip_itself:
            product.diagonal(start).fill_(-torch.inf)
        top = product.topk(count, dim=1)
        rows.append(top.indices)
        similarities.append(top.values)
    return torch.cat(rows).cpu().numpy(), torch.cat(similarities).cpu().numpy()


def count_labels(labels: NDArray[np.int64], classes: int) -> NDArray[np.uint8]:
    """Return `[N, classes]` how often each label stands in each row of `labels` `[N, votes]`."""
    counts = np.zeros((len(labels), classes), np.uint8)
    for column in labels.T:
        counts[np.arange(len(labels)), column] += 1
    return counts
