"""Arrays and many small images as text, for the page's script."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_SIDE = 16_383  # pixels of a WebP image
SPRITE_COLUMNS = 25
METHOD = 2  # of WebP: 4 saves 1% of the bytes and takes two to four times as long

Positions = NDArray[np.int64]


def encode(array: NDArray[Any]) -> str:
    """Return the little-endian bytes as base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def max_images(size: int) -> int:
    """Return how many images of `size` × `size` pixels a sprite can hold."""
    return sprite_columns(size) * (MAX_SIDE // size)


def sprite_columns(size: int) -> int:
    """Return how many images of `size` × `size` pixels a row of a sprite holds."""
    return min(SPRITE_COLUMNS, MAX_SIDE // size)


def make_sprite(images: NDArray[np.uint8], *, lossless: bool, quality: int) -> str:
    """Tile images `[N, S, S, 3]` into one, row by row, and return it as a WebP data URI."""
    count, size = images.shape[:2]
    columns = sprite_columns(size)
    sheet = np.zeros((max(1, -(-count // columns)) * size, columns * size, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * size, number % columns * size
        sheet[top : top + size, left : left + size] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", lossless=lossless, quality=quality, method=METHOD)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
