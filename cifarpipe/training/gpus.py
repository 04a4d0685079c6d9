"""Which of a machine's GPUs a training may have: one training on each, unless told to share."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

SHARE = "CIFARPIPE_SHARE_GPU"  # set to anything: no training waits for another one
POLL = 1.0  # seconds between looks whether a GPU has become free


@contextmanager
def claimed_gpus(count: int, name: str) -> Iterator[list[int]]:
    """Hold `count` GPUs of this machine, waiting until so many are free.

    Args:
        count: As many as there are, at most.
        name: Of who waits, to be told on the terminal.

    Yields:
        Their numbers in this process; where there are no GPUs, or they are shared, the first ones.
    """
    there = torch.cuda.device_count()
    if not there or os.environ.get(SHARE):
        yield list(range(count))
        return
    names = [gpu_name(number) for number in range(there)]

    def tell() -> None:
        print(
            f"{name} waits until {count} of {there} GPUs {'is' if count == 1 else 'are'} free of "
            f"other trainings ({SHARE}=1 lets them share one).",
            flush=True,
        )

    with claimed(names, count, tell=tell) as numbers:
        yield numbers


def gpu_name(number: int) -> str:
    """Return what tells a GPU, or a part of one, from all others of the machine."""
    return f"cifarpipe-gpu-{torch.cuda.get_device_properties(number).uuid}"


@contextmanager
def claimed(
    names: Sequence[str], count: int, *, tell: Callable[[], None], folder: Path | None = None
) -> Iterator[list[int]]:
    """Hold `count` of some things that no two processes may have at a time.

    All at once or none, so that two who want several do not wait for each other. Whoever is killed
    lets go.

    Args:
        names: Of all things, the preferred ones first.
        count: How many are wanted.
        tell: Called once, if there is to be waiting.
        folder: Of the locks; by default the system's for temporary files.

    Yields:
        The places in `names` of those that are held.
    """
    home = Path(tempfile.gettempdir()) if folder is None else folder
    waited = False
    while True:
        with ExitStack() as held:
            numbers: list[int] = []
            for number, name in enumerate(names):
                if len(numbers) < count and held.enter_context(_tried(home / f"{name}.lock")):
                    numbers.append(number)
            if len(numbers) == count:
                yield numbers
                return
        if not waited:
            tell()
            waited = True
        time.sleep(POLL)


@contextmanager
def _tried(path: Path) -> Iterator[bool]:
    """Hold a lock while the block runs, if nobody else has it; yield whether it is held."""
    # For reading: the file may be another user's.
    with suppress(FileExistsError):
        made = os.open(path, os.O_CREAT | os.O_EXCL)
        os.fchmod(made, 0o644)  # whatever the umask
        os.close(made)
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
