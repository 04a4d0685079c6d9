"""Lock the GPUs of a machine, so that each trains one model at a time, unless told to share."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from cifarpipe.config.machine import SHARE_GPUS, shares_gpus

POLL = 1.0  # seconds between checks whether a GPU is free


@contextmanager
def claimed_gpus(count: int, name: str) -> Iterator[list[int]]:
    """Lock `count` GPUs of this machine, waiting until so many are free.

    Args:
        count: At most as many as there are.
        name: Of the waiting model, for the message.

    Yields:
        Their numbers in this process; without GPUs, or if they are shared, the first ones.
    """
    total = torch.cuda.device_count()
    if not total or shares_gpus():
        yield list(range(count))
        return
    names = [gpu_name(number) for number in range(total)]

    def on_wait() -> None:
        print(
            f"{name} waits until {count} of {total} GPUs {'is' if count == 1 else 'are'} free of "
            f"other trainings ({SHARE_GPUS}=1 shares them).",
            flush=True,
        )

    with claimed(names, count, on_wait=on_wait) as numbers:
        yield numbers


def gpu_name(number: int) -> str:
    """Return a name that identifies a GPU, or a part of one, on this machine."""
    return f"cifarpipe-gpu-{torch.cuda.get_device_properties(number).uuid}"


@contextmanager
def claimed(
    names: Sequence[str], count: int, *, on_wait: Callable[[], None], folder: Path | None = None
) -> Iterator[list[int]]:
    """Lock `count` resources that no two processes may use at a time.

    All at once or none, so that two processes that need several do not wait for each other. The
    locks of a killed process are released.

    Args:
        names: Of all resources, the preferred ones first.
        count: How many to lock.
        on_wait: Called once if too few are free.
        folder: Of the lock files; by default the system's folder of temporary files.

    Yields:
        The positions in `names` of the locked ones.
    """
    home = Path(tempfile.gettempdir()) if folder is None else folder
    waited = False
    while True:
        with ExitStack() as held:
            numbers: list[int] = []
            for number, name in enumerate(names):
                if len(numbers) < count and held.enter_context(_try_lock(home / f"{name}.lock")):
                    numbers.append(number)
            if len(numbers) == count:
                yield numbers
                return
        if not waited:
            on_wait()
            waited = True
        time.sleep(POLL)


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock during the block if no other process does; yield whether it is held."""
    # Opened for reading: the file may belong to another user.
    with suppress(FileExistsError):
        created = os.open(path, os.O_CREAT | os.O_EXCL)
        os.fchmod(created, 0o644)  # whatever the umask
        os.close(created)
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
