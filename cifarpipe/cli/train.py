"""Train one model on several machines: `cifarpipe train` runs on each of them."""

import os
import re

# For every failed attempt to connect, PyTorch's C++ part prints a stack trace; only what is set
# when it is loaded prevents that.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
import torch
import torch.distributed as dist

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.training.launch import run_processes

if os.environ["TORCH_CPP_LOG_LEVEL"] == "FATAL":
    del os.environ["TORCH_CPP_LOG_LEVEL"]

HOST = re.compile(r"[\w.-]+|\[[\da-fA-F:.]+\]", re.ASCII)  # a name or an address
PORTS = range(1, 65536)


def train_on_nodes(
    model: str, *, nodes: int, rank: int, address: str, processes: int | None, timeout: int
) -> None:
    """Wait for the other machines, then run the stage `train` in processes on each, by torchrun.

    Args:
        model: Name of an entry of `models`.
        nodes: Number of machines.
        rank: Number of this machine, from 0 on. Machine 0 prints and writes.
        address: `HOST:PORT` of machine 0, where all of them meet.
        processes: Of this machine; by default one per GPU, or one on the CPU.
        timeout: Seconds to wait for the other machines.

    Raises:
        UserError: An argument is not allowed, or not all machines joined in time.
        SystemExit: A process failed, with its exit code; or a signal stopped all of them.
    """
    load_params().model(model)
    if rank >= nodes:
        raise UserError(f"--rank is {rank}, of {nodes} machines.\nAllowed: 0 to {nodes - 1}.")
    host, _, port = address.rpartition(":")
    if not (HOST.fullmatch(host) and port.isascii() and port.isdecimal() and int(port) in PORTS):
        raise UserError(
            f"--address is {address!r}.\nAllowed: HOST:PORT, such as first:29500, with a port of "
            f"{PORTS.start} to {PORTS.stop - 1}."
        )
    try:
        run_processes(
            "stages.train", model,
            nodes=nodes, nproc_per_node=processes or torch.cuda.device_count() or 1,
            rdzv_backend="static", rdzv_endpoint=address,
            rdzv_configs={"rank": rank, "timeout": timeout}, run_id=model,
        )  # fmt: skip
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        raise UserError(
            f"The {nodes} machines did not meet at {address} (--timeout: {timeout} seconds).\n"
            f"Start the same command on all of them, with --rank 0 to {nodes - 1}. The port of "
            f"machine 0 must be free, and the others must reach it."
        ) from error
