"""An epoch's augmented batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.augment.transform import EpochOrder
from cifarpipe.networks.images import ImageStore
from cifarpipe.training.distributed import Share, World

# Bytes of images that are augmented at a time: what fits a CPU's cache, or occupies a GPU
# for longer than the host needs to launch the kernels: 512 and 8,192 images of 32 × 32 pixels.
AT_ONCE = {"cpu": 512 * 3072, "cuda": 8192 * 3072}


@dataclass(frozen=True)
class Batch:
    """The input of one step."""

    inputs: Tensor
    """`[B, 3, H, W]` float32, augmented and normalised."""
    targets: Tensor
    """`[B]` int64 labels, or `[B, classes]` float32 probabilities where images are mixed."""
    share: Share
    """This process's part of the whole batch."""

    @property
    def labels(self) -> Tensor:
        """`[B]` int64: the most probable class of each target."""
        return self.targets if self.targets.ndim == 1 else self.targets.argmax(dim=1)


class AugmentedBatches:
    """The train split in a new order in every epoch.

    Order and draws are a function of (seed, epoch). Neither the device nor the number of processes
    nor the number of images augmented at a time changes a step's input.
    """

    def __init__(
        self,
        images: ImageStore,
        labels: NDArray[np.int64],
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        world: World,
    ) -> None:
        """Prepare for any number of epochs.

        Args:
            images: `[N, H, W, 3]`.
            labels: `[N]`.
            augmentation: On the images' device.
            batch_size: Images of a step, in all processes together.
            seed: Of orders and draws.
            world: This process gets its share of each batch.
        """
        self.images, self.labels, self.augmentation = images, labels, augmentation
        self.batch_size, self.seed = batch_size, seed
        self.shares = world.shares(len(labels), batch_size)
        self.shown = np.concatenate([np.arange(share.start, share.stop) for share in self.shares])

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self.shares)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 1."""
        rng = np.random.default_rng([self.seed, number])
        order = EpochOrder(number, rng.permutation(len(self.labels)))
        drawn = self.augmentation.draw(rng, order, self.batch_size, self.shown)
        mine = order.images[self.shown]
        labels = torch.from_numpy(self.labels[mine]).to(self.images.device)
        several = max(1, AT_ONCE[self.images.device.type] // (self.batch_size * self.images.bytes))
        groups = [self.shares[i : i + several] for i in range(0, len(self), several)]
        ends = np.cumsum([sum(map(len, group)) for group in groups]).tolist()
        spans = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        pictures = self.images.batches([mine[span] for span in spans])
        for group, span, images in zip(groups, spans, pictures, strict=True):
            inputs, targets = self.augmentation.apply(images, labels[span], drawn[span])
            sizes = [len(share) for share in group]
            steps = zip(group, inputs.split(sizes), targets.split(sizes), strict=True)
            for share, its_inputs, its_targets in steps:
                yield Batch(its_inputs, its_targets, share)
