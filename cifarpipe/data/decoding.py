"""Decode many image files, in several processes."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import cores
from cifarpipe.data.picture import PictureError, open_exact, open_picture
from cifarpipe.data.raw import Images

MAX_PIXELS = 1024 * 1024  # of an image that keeps its size
CHUNK = 16  # files that a process decodes at a time


def decode_all(files: Sequence[Path], size: int | None) -> Iterator[Images | str]:
    """Yield for each file its pixels, or why it can't be used, in order.

    A terminal shows a progress bar.

    Args:
        files: Image files.
        size: Images of any shape become pictures `[size, size, 3]`, as by `open_picture`. None:
            they keep their size, as by `open_exact`.

    Raises:
        UserError: A process was stopped, or can't be started.
    """
    bar = partial(tqdm, desc="reading images", total=len(files), unit=" images", disable=None)
    if len(files) <= CHUNK:  # starting processes would take longer
        yield from bar(_decode_chunk(files, size))
        return
    try:
        with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
            yield from bar(_decode_in(pool, files, size))
    except (BrokenProcessPool, OSError) as error:
        raise UserError(
            f"a process that reads images was stopped, or can't be started: {error}\n"
            f"There may be too little memory, or too many processes: stop other programs, and run "
            f"the same command again."
        ) from None


def _decode_in(
    pool: ProcessPoolExecutor, files: Sequence[Path], size: int | None
) -> Iterator[Images | str]:
    """Decode at most two chunks for each core ahead, since images take much memory."""
    most, ahead = 2 * cores(), deque[Future[list[Images | str]]]()
    try:
        for start in range(0, len(files), CHUNK):
            if len(ahead) == most:
                yield from ahead.popleft().result()
            ahead.append(pool.submit(_decode_chunk, files[start : start + CHUNK], size))
        while ahead:
            yield from ahead.popleft().result()
    finally:  # the rest is not wanted any more
        for future in ahead:
            future.cancel()


def _decode_chunk(files: Sequence[Path], size: int | None) -> list[Images | str]:
    return [_decode(file, size) for file in files]


def _decode(file: Path, size: int | None) -> Images | str:
    try:
        if size is None:
            return open_exact(file, MAX_PIXELS)
        return open_picture(file).resized(size).pixels
    except PictureError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)
