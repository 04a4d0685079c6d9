"""Read a folder of images: `train/<class>/*` and `test/<class>/*`, in any format of Pillow."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.data.decoding import MAX_BYTES, decode_all
from cifarpipe.data.names import is_text
from cifarpipe.data.raw import Images, Labels, RawData, RawSplit
from cifarpipe.data.watch import is_ignored
from cifarpipe.store.paths import RAW_ROOT_VARIABLE, raw_root
from cifarpipe.store.prepared import PREPARED

MAX_ERRORS = 10  # listed in a message
# A small file can unpack to gigabytes: larger images than these are not decoded.
MAX_PIXELS = 1024 * 1024
MAX_DIGITS = 18  # of a file's number: it fits in 64 bits
# What Pillow's decoders raise on a damaged file; those of AVIF and DDS raise RuntimeError.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, RuntimeError,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_NAME_ERROR = "the name has a control character or is not UTF-8"


def read_folder(folder: str, image_size: int | None = None) -> RawData:
    """Read all images; classes and files are in alphabetical order, hidden files are ignored.

    If all test files are named by distinct whole numbers, such as `ship/8117.png`, these are the
    images' original index and order: files that others published about the images, by index, fit.
    Links are followed.

    Without `image_size`, greyscale, CMYK and palette images are converted to RGB, and images with
    more than 8 bits per channel are refused, since Pillow would clip them to white. With it, images
    of any shape are converted as by `open_picture`, in several processes, and kept in a temporary
    file.

    Args:
        folder: Absolute, or relative to the raw-data folder.
        image_size: Height and width to which images are cropped and resized; None if they are
            square and all of one size.

    Raises:
        UserError: The folder does not exist; train/ and test/ have different classes; a class has
            no images, or a folder in it; or a file is not a complete image, is larger than
            `MAX_BYTES`, has a name that is not text, or, without `image_size`, has another size
            than the others or more than `MAX_PIXELS`. The message lists the first errors.
    """
    root = raw_root() / Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(
            f"data.folder is {folder!r}, but there is no folder {root}.\n"
            f"A relative path is looked up in ${RAW_ROOT_VARIABLE} (now {raw_root()}). Set that "
            f"variable, or correct data.folder."
        )
    classes = _find_classes(root)
    errors: list[str] = []
    train = _find_files(root / "train", classes, errors)
    test = _find_files(root / "test", classes, errors)
    numbers = _numbers(test)
    if numbers is not None:
        order = np.argsort(numbers)
        test, numbers = [test[i] for i in order], numbers[order]
    if image_size is None:
        images = _read_all(train + test, root, errors)
    else:
        images = _resize_all(train + test, image_size, root, errors)
    if errors or images is None:
        shown = "\n".join(f"  - {error}" for error in errors[:MAX_ERRORS])
        more = len(errors) - MAX_ERRORS
        rest = f"\n  … and {more} more" if more > 0 else ""
        sizes = "square images, all of one size" if image_size is None else "images of any size"
        raise UserError(
            f"{root} can't be used ({len(errors)} problem{'s' if len(errors) > 1 else ''}):\n"
            f"{shown}{rest}\n"
            f"Expected: in each class folder, complete {sizes}, and nothing else. Fix or remove "
            f"these files."
        )

    def split(files: list[Path], images: Images, index: Labels | None) -> RawSplit:
        labels = np.array([classes.index(file.parent.name) for file in files], np.int64)
        names = [f"{file.parent.name}/{file.name}" for file in files]
        return RawSplit(images, labels, index=index, files=names)

    count = len(train)
    return RawData(
        classes, split(train, images[:count], None), split(test, images[count:], numbers)
    )


def _find_classes(root: Path) -> list[str]:
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(
                f"{root} has no folder {half}/.\nExpected: train/<class>/* and test/<class>/*."
            )
        found[half] = {path.name for path in _visible(root / half) if path.is_dir()}
        if odd := [name for name in sorted(found[half]) if not is_text(name)]:
            raise UserError(f"{root}/{half}: class {odd[0]!a}: {_NAME_ERROR}.\nRename that folder.")
    if lonely := sorted(found["train"] ^ found["test"]):
        raise UserError(
            f"{root}: classes that are in only one of train/ and test/: {', '.join(lonely)}.\n"
            f"Every class needs images in both."
        )
    if not found["train"]:
        raise UserError(f"{root}/train has no class folders.\nExpected: train/<class>/*.")
    return sorted(found["train"])


def _find_files(root: Path, classes: list[str], errors: list[str]) -> list[Path]:
    """Return the files of one half, class by class; unusable names become errors."""
    found = []
    for name in classes:
        inside = _visible(root / name)
        if not inside:
            errors.append(f"{root.name}/{name}: has no images")
        for path in inside:
            if not is_text(path.name):
                errors.append(f"{root.name}/{f'{name}/{path.name}'!a}: {_NAME_ERROR}")
            elif path.is_dir():
                errors.append(
                    f"{root.name}/{name}/{path.name}: a folder; images in it are not read"
                )
            else:
                found.append(path)
    return found


def _numbers(files: list[Path]) -> Labels | None:
    """Return the numbers that the files are named by; None if one has none, or two are equal."""
    stems = [file.stem for file in files]
    if not all(stem.isascii() and stem.isdigit() and len(stem) <= MAX_DIGITS for stem in stems):
        return None
    numbers = np.array(stems, np.int64)
    return numbers if len(np.unique(numbers)) == len(numbers) else None


def _read_all(files: list[Path], root: Path, errors: list[str]) -> Images | None:
    """Return images `[N, S, S, 3]` as they are; None if one can't be read or their sizes differ."""
    pictures: dict[str, Images] = {}
    for file in tqdm(files, desc="reading images", unit=" images", disable=None):
        name = file.relative_to(root).as_posix()
        try:
            pictures[name] = _read_picture(file)
        except _UNREADABLE as error:
            errors.append(f"{name}: {_reason(error)}")
            continue
        height, width, _ = pictures[name].shape
        if height != width:
            errors.append(f"{name}: {width} × {height}, not square; `data.image_size` crops it")
    sizes = [picture.shape[:2] for picture in pictures.values()]
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size), default=None)
    errors += [
        f"{name}: {size[1]} × {size[0]}, others are {usual[1]} × {usual[0]}"
        for name, size in zip(pictures, sizes, strict=True)
        if usual and size != usual and size[0] == size[1]
    ]
    return np.stack(list(pictures.values())) if pictures and not errors else None


def _read_picture(path: Path) -> np.ndarray:
    """Return `[H, W, 3]` uint8, or raise one of `_UNREADABLE`."""
    if not path.is_file():  # reading a pipe would block
        raise ValueError("not a regular file, or a link to a missing one")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"{picture.width} × {picture.height}, more than {MAX_PIXELS:,} pixels"
                )
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits per pixel and channel (mode {picture.mode})")
            return np.asarray(picture.convert("RGB"))


def _resize_all(files: list[Path], size: int, root: Path, errors: list[str]) -> Images | None:
    """Return images `[N, size, size, 3]`, memory-mapped; None if there are no files.

    The pixels of an image that can't be used are undefined; `errors` gets a line for it.
    """
    if not files:
        return None
    PREPARED.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=PREPARED.parent) as storage:
        images = np.memmap(storage, np.uint8, "w+", shape=(len(files), size, size, 3))
    for number, pixels in enumerate(decode_all(files, size)):
        if isinstance(pixels, str):
            errors.append(f"{files[number].relative_to(root).as_posix()}: {pixels}")
        else:
            images[number] = pixels
    return images


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name))


def _reason(error: Exception) -> str:
    text = str(error)
    return "not an image" if text.startswith("cannot identify") else text
