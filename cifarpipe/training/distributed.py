"""Several processes that train one model: who does what, and how their figures come together."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifarpipe.config.errors import UserError
from cifarpipe.networks.devices import pick_device
from cifarpipe.training.synced_norm import synchronize_norms


@dataclass(frozen=True)
class Share:
    """One process's part of a batch; it may be empty."""

    start: int
    """Position in the epoch of its first image."""
    stop: int
    scale: float
    """By which it multiplies the sum of its losses, so that the mean over processes is the batch's
    mean."""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class World:
    """One of `size` processes, each with a device of its own."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def shares(self, count: int, batch_size: int) -> list[Share]:
        """Divide the batches of an epoch of `count` images; return this process's part of each.

        Neighbours 0 and 1, 2 and 3, … of a batch stay together, since mixing pairs them. Of a small
        last batch some get nothing.
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

    def together(self, model: nn.Module) -> nn.Module:
        """Return a module of the same weights that acts as one network over all processes.

        Gradients are averaged in its backward pass, and batch norms see the whole batch.
        """
        if self.size == 1:
            return model
        synchronize_norms(model)
        # A 1 × 1 kernel has two layouts that are one and the same; DDP warns of it.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(model)

    def total(self, figures: Tensor) -> Tensor:
        """Add up figures of all processes."""
        if self.size > 1:
            dist.all_reduce(figures)
        return figures


@contextmanager
def joined(gpu: int = 0) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that `launch` started, if it did; yield this one's place and device.

    A `UserError` is raised by all of them; only the leading one says it.

    Args:
        gpu: To be used by a process that is on its own, if there are any.
    """
    if "LOCAL_RANK" not in os.environ:
        yield World(), pick_device(gpu)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = pick_device(int(os.environ["LOCAL_RANK"]))
    if device.type == "cpu":
        torch.set_num_threads(max(1, cores() // size))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world = World(rank, size)
    try:
        yield world, device
    except UserError:
        if world.leads:
            raise
        raise SystemExit(2) from None
    finally:
        dist.destroy_process_group()


def is_launched() -> bool:
    """Say whether this process is one of those that `launch` started."""
    return "LOCAL_RANK" in os.environ


def launch(gpus: Sequence[int], module: str, *arguments: str) -> None:
    """Run `python -m module arguments` in several processes under torchrun, and wait for them.

    Args:
        gpus: The number of each process's GPU; without GPUs there are just as many processes.
        module: To run.
        *arguments: Its own.

    Raises:
        SystemExit: One of them failed; with its exit code. Or all were stopped by a signal.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(max(gpus) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in gpus)
    # A process that fails has said why; torchrun's own report adds nothing to that.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(gpus),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except SignalException as stopped:
        raise SystemExit(128 + stopped.sigval) from None
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        raise SystemExit(max(codes) if max(codes) > 0 else 1) from None


def check_devices(count: int) -> None:
    """Refuse to train on more devices than there are.

    Raises:
        UserError: There are fewer.
    """
    gpus = torch.cuda.device_count()
    there = gpus or cores()
    if count > there:
        raise UserError(
            f"train.devices is {count}, and this machine has {there} "
            f"{'GPU' if gpus else 'CPU core'}{'s' if there > 1 else ''}.\n"
            f"Set it to 1 … {there}."
        )


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))
