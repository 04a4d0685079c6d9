"""Start a training on the devices it asks for: one process here, or several under torchrun."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cifarpipe.config.command import USER_ERROR
from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import cores
from cifarpipe.networks.devices import pick_device
from cifarpipe.training.distributed import World
from cifarpipe.training.gpus import claimed_gpus
from cifarpipe.training.resume import locked

Work = Callable[[World, torch.device], None]
# What PyTorch's gloo and NCCL say when another process has gone.
LOST_CONNECTION = re.compile(
    "connection (closed|reset|refused)|broken pipe|remote process", re.IGNORECASE
)


def run_on_devices(work: Work, count: int, *, name: str, module: str, states: Path) -> None:
    """Run `work` on `count` devices: in this process, or once in each of `count` processes.

    Waits until so many GPUs are free of other trainings. In a process of torchrun, started by this
    function or by a user, `work` is run directly.

    Args:
        work: Trains and writes; gets this process's rank and device.
        count: GPUs, or processes on the CPU if there is no GPU; a user's torchrun has its own.
        name: Of the model.
        module: The stage, started as `python -m module name` in each process.
        states: Folder of the model's resume states; no two trainings may use it at a time.

    Raises:
        UserError: There are fewer devices, or the model is being trained already.
        SystemExit: A process failed; with its exit code.
    """
    if is_launched():
        with joined() as (world, device):
            work(world, device)
        return
    check_devices(count)
    with claimed_gpus(count, name) as gpus:
        if count == 1:
            work(World(), pick_device(gpus[0]))
            return
        with locked(states, name):
            pass  # refuse here, or every process would
        launch(gpus, module, name)


def check_devices(count: int) -> None:
    """Check that there are `count` GPUs, or CPU cores if there is no GPU.

    Raises:
        UserError: There are fewer.
    """
    gpus = torch.cuda.device_count()
    available = gpus or cores()
    if count > available:
        raise UserError(
            f"train.devices is {count}, and this machine has {available} "
            f"{'GPU' if gpus else 'CPU core'}{'s' if available > 1 else ''}.\n"
            f"Allowed: 1 to {available}."
        )


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ


@contextmanager
def joined() -> Iterator[tuple[World, torch.device]]:
    """Join the process group that torchrun set up; yield this process's rank and device.

    A `UserError`, of the block or about a lost connection, is raised by the first process of each
    machine only; the others exit with its code.

    Raises:
        UserError: Another process has stopped.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    device = pick_device(local_rank)
    if device.type == "cpu":
        # PyTorch's own number is that of OMP_NUM_THREADS, if a user set it.
        threads = min(torch.get_num_threads(), cores())
        torch.set_num_threads(max(1, threads // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size), device
    except (UserError, RuntimeError) as error:
        lost = LOST_CONNECTION.search(str(error)) is not None
        if not lost and not isinstance(error, UserError):
            raise
        if local_rank:
            raise SystemExit(USER_ERROR) from None
        if not lost:
            raise
        raise UserError(
            "another process of this training stopped.\nWhat it printed, here or on another "
            "machine, says why; it prints nothing if the system killed it (out of memory?)."
        ) from None
    finally:
        dist.destroy_process_group()


def launch(gpus: Sequence[int], module: str, *arguments: str) -> None:
    """Run `python -m module arguments` in several processes under torchrun, and wait for them.

    Args:
        gpus: The GPU of each process; without GPUs, as many processes on the CPU.
        module: The module to run.
        *arguments: Its arguments.

    Raises:
        SystemExit: A process failed, with its exit code; or a signal stopped all of them.
    """
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(max(gpus) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[gpu] for gpu in gpus)
    run_processes(
        module, *arguments,
        nproc_per_node=len(gpus), rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
    )  # fmt: skip


def run_processes(module: str, *arguments: str, nodes: int = 1, **options: Any) -> None:
    """Run `python -m module arguments` in the processes of this machine, and wait for them.

    Args:
        module: The module to run.
        *arguments: Its arguments.
        nodes: Machines.
        **options: Of torchrun's `LaunchConfig`: processes of this machine, and how machines meet.

    Raises:
        SystemExit: A process failed, with its exit code; or a signal stopped all of them.
        DistStoreError, DistNetworkError: The machines did not meet.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # A process that fails has printed why; torchrun's own report adds nothing.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=nodes, max_nodes=nodes, max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # by default an empty folder for each run
        **options,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except SignalException as stopped:
        raise SystemExit(128 + stopped.sigval) from None
    except ChildFailedError as error:
        # If one process stops, others lose their connection and exit with USER_ERROR.
        codes = {failure.exitcode for failure in error.failures.values() if failure.exitcode > 0}
        raise SystemExit(max(codes - {USER_ERROR} or codes, default=1)) from None
