"""Decode many image files of any shape, in several processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from cifarpipe.data.picture import PictureError, open_picture
from cifarpipe.data.raw import Images

MAX_BYTES = 32 * 1024 * 1024  # of a file; some decoders read all of it
CHUNK = 16  # files that a process decodes at a time


def decode_all(files: Sequence[Path], size: int) -> Iterator[Images | str]:
    """Yield for each file its picture `[size, size, 3]`, or why it can't be used, in order.

    They are converted as `open_picture` describes. A terminal shows a progress bar.

    Args:
        files: Image files.
        size: Height and width.
    """
    decode = partial(_decode, size=size)
    bar = partial(tqdm, desc="reading images", total=len(files), unit=" images", disable=None)
    if len(files) <= CHUNK:  # starting processes would take longer
        yield from bar(map(decode, files))
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from bar(pool.map(decode, files, chunksize=CHUNK))


def _decode(file: Path, size: int) -> Images | str:
    try:
        if (length := file.stat().st_size) > MAX_BYTES:
            return f"{length:,} bytes, more than {MAX_BYTES:,}"
        return open_picture(file).resized(size).pixels
    except PictureError as error:
        return error.reason
    except OSError as error:
        return error.strerror or str(error)
