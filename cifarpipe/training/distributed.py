"""Several processes train one model: their parts of a batch, and reductions over them."""

import warnings
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarpipe.training.sync_batch_norm import synchronize_batch_norms

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One process's part of a batch; it may be empty."""

    start: int
    """Position in the epoch of its first image."""
    stop: int
    scale: float
    """Factor of the sum of its losses, so that the mean over processes is the batch's mean."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class World:
    """This process's rank among `size` processes, each with a device of its own."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, and prints the progress."""
        return self.rank == 0

    def shares(self, count: int, batch_size: int) -> list[Share]:
        """Split the batches of an epoch of `count` images; return this process's part of each.

        Neighbours 0 and 1, 2 and 3, … of a batch stay together, since mixing pairs them. Of a small
        last batch some processes get nothing.
        """
        return [
            self._share(start, min(start + batch_size, count))
            for start in range(0, count, batch_size)
        ]

    def _share(self, start: int, stop: int) -> Share:
        whole = stop - start
        each = 2 * -(-whole // (2 * self.size))
        first, last = (min(start + rank * each, stop) for rank in (self.rank, self.rank + 1))
        return Share(first, last, self.size / whole)

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """Return a module with the same weights that acts as one network over all processes.

        Its backward pass averages gradients, and its batch norms see the whole batch.
        """
        if self.size == 1:
            return model
        synchronize_batch_norms(model)
        # The two memory layouts of a 1 × 1 kernel are the same; DDP warns of them.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(model)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        """Return the main process's value in every process; the others' are ignored."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]
