"""The images of a split as bytes on the device: resident, or streamed if they do not fit."""

import math
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

READ_AHEAD = 2  # batches: one is copied to the device while the next one is read
RAM_LIMIT = 2**30  # bytes of images that are copied from the memory map on a CPU


class ImageStore:
    """The images of a split, as batches on a device in any order.

    Images that fit are copied to the device once. Otherwise a thread reads them from the memory
    map, shortly before they are used, through pinned memory. The batches are the same either way.
    """

    def __init__(
        self, images: NDArray[np.uint8], device: torch.device, *, limit: int | None = None
    ) -> None:
        """Copy the images to the device if they fit.

        Args:
            images: `[N, H, W, 3]`, memory-mapped or not.
            device: Of the batches.
            limit: Most bytes to keep there; by default half of a GPU's free memory, 1 GiB on a CPU.
        """
        self.images = images
        self._map = memory_map(images)
        self.device = device
        limit = room(device) if limit is None else limit
        self.resident: Tensor | None = None
        if images.nbytes <= limit:
            self.resident = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def bytes(self) -> int:
        """Bytes of one image."""
        return math.prod(self.images.shape[1:])

    def batches(self, picks: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield `[B, H, W, 3]` uint8 for each `[B]` indices, in their order."""
        if self.resident is None:
            yield from self._streamed(picks)
            return
        flat = self.resident.flatten(1)  # rows of bytes are gathered faster than images
        index = torch.from_numpy(np.concatenate(picks)).to(self.device) if picks else None
        for pick in index.split([len(pick) for pick in picks]) if index is not None else ():
            yield flat.index_select(0, pick).view(-1, *self.images.shape[1:])

    def _streamed(self, picks: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        ahead: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="images") as reader:
            for pick in picks:
                ahead.append(reader.submit(self._read, pick))
                if len(ahead) > READ_AHEAD:
                    yield self._to_device(ahead.popleft().result())
            while ahead:
                yield self._to_device(ahead.popleft().result())

    def _read(self, pick: NDArray[np.int64]) -> Tensor:
        # PyTorch takes pinned memory from a pool, and reuses none that is still being copied.
        shape = len(pick), *self.images.shape[1:]
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.take(self.images, pick, axis=0, out=batch.numpy(), mode="clip")
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)  # else every page read counts as our memory
        return batch

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, non_blocking=True)


def memory_map(array: NDArray[np.generic]) -> mmap.mmap | None:
    """Return the memory map that an array is a view of, if it is."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def room(device: torch.device) -> int:
    """Return how many bytes of images to keep on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 2
    return RAM_LIMIT
