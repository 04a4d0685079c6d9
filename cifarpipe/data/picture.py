"""Convert any image file to the input of a network: square, RGB, 8 bits."""

import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cifarpipe.config.errors import UserError

MAX_BYTES = 256 * 1024 * 1024  # of a file; some decoders read all of it
_EXPECTED = "Expected: an image in a format that Pillow reads, e.g. JPEG, PNG, GIF or TIFF."
_COLOURS = {"1": "black and white", "L": "grey", "P": "a palette"}  # by Pillow's mode
Step = tuple[Image.Image, str | None]  # the image, and in words what was done to it


class PictureError(UserError):
    """A file that can't be used as a picture."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}.\n{_EXPECTED}")
        self.reason = reason
        """What is wrong, e.g. `is empty`."""


@dataclass(frozen=True)
class Picture:
    """An image as a network sees it."""

    pixels: NDArray[np.uint8]
    """`[size, size, 3]`."""
    found: str
    """The file's content, e.g. `JPEG, 4000 × 3000 pixels`."""
    steps: list[str]
    """What was done to it, in order."""


@dataclass(frozen=True)
class OpenedPicture:
    """A decoded image file: square, RGB, 8 bits, of its own size."""

    image: Image.Image
    found: str
    """The file's content, e.g. `JPEG, 4000 × 3000 pixels`."""
    steps: list[str]
    """What was done to it, in order."""

    def resized(self, size: int) -> Picture:
        """Return the image in `size` × `size` pixels, with antialiasing."""
        image, steps = self.image, list(self.steps)
        if image.width != size:
            steps.append(f"{'reduced' if image.width > size else 'enlarged'} to {size} × {size}")
            image = image.resize((size, size), Image.Resampling.LANCZOS)
        return Picture(np.array(image), self.found, steps)


def open_exact(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a square image file that is not grey with more than 8 bits.

    Colours and transparency are converted as by `open_picture`, so that both give the same pixels.

    Args:
        path: A file in any format that Pillow reads.
        max_pixels: Larger images are not decoded: a small file can unpack to gigabytes.

    Returns:
        `[S, S, 3]`.

    Raises:
        PictureError: As `open_picture`; or the image is larger, not square, or grey with more bits,
            which Pillow would clip to white.
    """
    check_file(path)
    image, _, _ = _decode(path, max_pixels)
    if image.mode.startswith(("I", "F")):
        raise PictureError(path, "is grey with more than 8 bits; `data.image_size` converts it")
    if image.width != image.height:
        raise PictureError(path, f"is {image.width} × {image.height}, not square")
    for change in (_on_white, _rgb):
        image, _ = change(image)
    return np.array(image)


def open_picture(path: Path) -> OpenedPicture:
    """Decode an image file and make it a square in RGB with 8 bits.

    It is rotated according to its EXIF data, put on white if it is transparent, and cropped to the
    centre. Of several frames the first one is used. Colour profiles are ignored.

    Args:
        path: A file in any format that Pillow reads.

    Raises:
        PictureError: The file is not an image, damaged, too large to be decoded safely, or holds
            values of unknown range.
    """
    check_file(path)
    image, found, steps = _decode(path)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, path)
        steps.append("converted from 16 to 8 bits")
    for change in (_on_white, _rgb, _square):
        image, done = change(image)
        steps += [done] if done else []
    return OpenedPicture(image, found, steps)


def check_file(path: Path) -> None:
    """Check that a path is a file with content, but not too much; else raise `PictureError`."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PictureError(path, "does not exist") from None
    except OSError as error:
        raise PictureError(path, f"can't be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        raise PictureError(path, "is a folder; name files" if folder else "is not a regular file")
    if not status.st_size:
        raise PictureError(path, "is empty")
    if status.st_size > MAX_BYTES:
        raise PictureError(path, f"has {status.st_size:,} bytes, more than {MAX_BYTES:,}")


def _decode(path: Path, max_pixels: int | None = None) -> tuple[Image.Image, str, list[str]]:
    """Return the first frame, upright, the file's content, and what was done to it."""
    steps = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if max_pixels is not None and file.width * file.height > max_pixels:
                    size = f"{file.width} × {file.height}"
                    raise PictureError(path, f"is {size}, more than {max_pixels:,} pixels")
                found = f"{file.format}, {file.width} × {file.height} pixels"
                if (frames := getattr(file, "n_frames", 1)) > 1:
                    steps.append(f"first of {frames} frames")
                file.seek(0)  # counting may have moved to the last one
                orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
                if 2 <= orientation <= 8:
                    steps.append(f"rotated upright (EXIF orientation {orientation})")
                return ImageOps.exif_transpose(file), found, steps
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise PictureError(
            path,
            f"has more than {limit} million pixels, which may exhaust the memory: make it smaller",
        ) from None
    except UnidentifiedImageError:
        raise PictureError(
            path, "is not an image, or has a format that Pillow does not read"
        ) from None
    except Exception as error:  # decoders raise nearly anything on a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(path, f"can't be read: {reason}") from None


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Return a grey image of 16 bits with 8 bits; Pillow itself would clip it to white.

    A level that the file declares transparent stays so.
    """
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise PictureError(path, "holds values of unknown range: save it with 8 or 16 bits")
    grey = Image.fromarray(np.round(levels / 257).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _on_white(image: Image.Image) -> Step:
    if not image.has_transparency_data:
        return image, None
    image = image.convert("RGBA")
    if np.asarray(image.getchannel("A")).min() == 255:
        return image.convert("RGB"), None
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB"), "put on white (transparent parts)"


def _rgb(image: Image.Image) -> Step:
    if image.mode == "RGB":
        return image, None
    return image.convert("RGB"), f"converted from {_COLOURS.get(image.mode, image.mode)} to RGB"


def _square(image: Image.Image) -> Step:
    width, height = image.size
    if width == height:
        return image, None
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    centre = image.crop((left, top, left + side, top + side))
    return centre, f"cropped to the central {side} × {side}"
