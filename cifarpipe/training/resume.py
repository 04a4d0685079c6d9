"""The state of a run on disk, so that a killed run resumes after a finished epoch."""

import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import atomic_path

# Magic, epoch, length of what follows, and its CRC-32, begun with the epoch.
HEADER = struct.Struct("<8sIQI")
MAGIC = b"cifarpip"
SLOTS = ("first", "second")  # written in turn, so that one complete file always exists
LOCK = "lock"
INTERVAL = 30.0  # least seconds between two saves


def fingerprint(
    parts: Mapping[str, Any] = MappingProxyType({}),
    arrays: Iterable[NDArray[np.generic]] = (),
    code: Iterable[Path] = (),
) -> str:
    """Return a hash of what shapes a run.

    Args:
        parts: Parameters, data and machine, as values for JSON.
        arrays: The original indices of the images used.
        code: Python files, or folders of them, that compute the result.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    for path in code:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


class ResumeStore:
    """Two files with the state of a run after finished epochs, the last and the one before.

    They are written in the background while the next epoch is computed, at most every `INTERVAL`.
    An incomplete file is recognised by its length and checksum, and the other one is used.
    """

    def __init__(self, home: Path, run: str, *, writes: bool = True) -> None:
        """Use a folder of the run's own; nothing is created yet.

        Args:
            home: Folder of all runs of a model.
            run: The run's fingerprint.
            writes: False for a process that only reads what another one writes.
        """
        self.home, self.folder, self.writes = home, home / run, writes
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="resume")
        self._written: Future[None] | None = None
        self._saved = -math.inf  # time of the last save
        self._slot = 1  # in which the newest state lies
        self._epoch = 0  # of that state
        self._pinned: dict[str, Tensor] = {}

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Prevent other processes from training the same model at the same time.

        Of the states of other runs, the newest is kept in case its settings are restored.

        Raises:
            UserError: Another process is training it.
        """
        if not self.writes:
            yield
            return
        with locked(self.home, name):
            self._remove_older_runs()
            self.folder.mkdir(exist_ok=True)
            try:
                yield
            except KeyboardInterrupt:
                then = f"resumes after epoch {self._epoch}" if self._epoch else "starts it again"
                print(f"{name}: interrupted; in this folder, `dvc repro` {then}", file=sys.stderr)
                raise
            finally:
                self.wait()
                with suppress(OSError):  # not empty
                    self.folder.rmdir()

    def _remove_older_runs(self) -> None:
        """Remove the folders of all other runs but the one with the newest state."""
        # Only folders: besides the lock, a file browser may leave a file there.
        others = {path for path in self.home.iterdir() if path.is_dir()} - {self.folder}
        # A run that ended before its first save may have left an empty folder.
        saved = [path for path in others if any((path / slot).exists() for slot in SLOTS)]
        kept = max(saved, key=lambda path: path.stat().st_mtime, default=None)
        for path in others - {kept}:
            shutil.rmtree(path)

    def load(self) -> dict[str, Any] | None:
        """Return the newest complete state, its tensors on the CPU, or None."""
        found = [read_state(self.folder / slot) for slot in SLOTS]
        complete = [(*each, slot) for slot, each in enumerate(found) if each is not None]
        if not complete:
            return None
        self._epoch, state, self._slot = max(complete, key=lambda each: each[0])
        return state

    def save(self, epoch: int, state: Callable[[], dict[str, Any]]) -> None:
        """Copy the state, then write it in the background; nothing within `INTERVAL` of a save.

        Args:
            epoch: The last finished one.
            state: Returns the state.
        """
        if not self.writes or time.monotonic() - self._saved < INTERVAL:
            return
        self.wait()  # the buffers are in use until then
        self._saved = time.monotonic()
        snapshot = _on_cpu(state(), self._pinned)
        copied = torch.cuda.current_stream().record_event() if self._pinned else None
        path = self._next_slot()
        self._written = self._writer.submit(write_state, path, epoch, snapshot, copied)
        self._epoch = epoch

    def _next_slot(self) -> Path:
        """Return the file to write: not that of the last complete state."""
        self._slot = 1 - self._slot
        return self.folder / SLOTS[self._slot]

    def wait(self) -> None:
        """Wait until the last save is on disk; raise its error if it failed."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def discard(self) -> None:
        """Remove the files of a successful run."""
        self.wait()
        if self.writes:
            shutil.rmtree(self.folder)


@contextmanager
def locked(home: Path, name: str) -> Iterator[None]:
    """Lock `home`, the folder of the resume states of the model `name`.

    Raises:
        UserError: Another process has locked it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"process {lock.read().strip()} is training {name} already.\n"
                f"If it is left over from a killed `dvc repro`, stop it with `kill`, or wait until "
                f"it is done; then run `dvc repro` again."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def write_state(
    path: Path, epoch: int, state: dict[str, Any], copied: torch.cuda.Event | None = None
) -> None:
    """Write a state after a header that shows whether the file is complete.

    Args:
        path: File to write.
        epoch: The last finished one.
        state: What to write, on the CPU.
        copied: When the state has arrived there; None: it has.
    """
    if copied is not None:
        copied.synchronize()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(HEADER.pack(MAGIC, epoch, len(content), zlib.crc32(content, epoch)))
        file.write(content)


def read_state(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Return epoch and state, or None if the file is missing or incomplete."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if len(content) < HEADER.size:
        return None
    magic, epoch, length, checksum = HEADER.unpack_from(content)
    body = memoryview(content)[HEADER.size :]
    if magic != MAGIC or len(body) != length or zlib.crc32(body, epoch) != checksum:
        return None
    return epoch, torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def _on_cpu(value: Any, pinned: dict[str, Tensor], name: str = "") -> Any:
    """Copy all tensors in nested dicts and lists, so that later steps do not change them.

    Args:
        value: What to copy.
        pinned: Buffers of tensors on a GPU, by name; copies to them do not wait for it.
        name: Of the value.
    """
    match value:
        case Tensor() if value.is_cuda:
            if name not in pinned:
                pinned[name] = torch.empty_like(value, device="cpu", pin_memory=True)
            return pinned[name].copy_(value.detach(), non_blocking=True)
        case Tensor():
            return value.detach().clone()
        case dict():
            return {key: _on_cpu(each, pinned, f"{name}.{key}") for key, each in value.items()}
        case list() | tuple():
            return type(value)(_on_cpu(x, pinned, f"{name}.{i}") for i, x in enumerate(value))
    return value
