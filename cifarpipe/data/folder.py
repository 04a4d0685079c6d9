"""Read a folder of images: `train/<class>/*` and `test/<class>/*`, in any format of Pillow."""

import unicodedata
import warnings
from pathlib import Path, PurePath

import numpy as np
from PIL import Image
from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.data.raw import RawData, RawSplit
from cifarpipe.data.watch import is_ignored
from cifarpipe.store.paths import RAW_ROOT_VARIABLE, raw_root

MAX_ERRORS = 10  # listed in a message
# A small file can unpack to gigabytes: larger images than these are not decoded.
MAX_PIXELS = 1024 * 1024
MAX_BYTES = 32 * MAX_PIXELS  # of a file; some decoders read all of it
MAX_DIGITS = 18  # of a file's number: it fits in 64 bits
# What Pillow's decoders raise on a damaged file; those of AVIF and DDS raise RuntimeError.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, RuntimeError,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
# Unicode categories that a name may not contain: control, lone surrogates, line ends.
_NOT_TEXT = {"Cc", "Cs", "Zl", "Zp"}
_NAME_ERROR = "the name has a control character or is not UTF-8"


def read_folder(folder: str) -> RawData:
    """Read all images; classes and files are in alphabetical order, hidden files are ignored.

    If all test files are named by distinct whole numbers, such as `ship/8117.png`, these are the
    images' original index and order: files that others published about the images, by index, fit.

    Greyscale, CMYK and palette images are converted to RGB. Images with more than 8 bits per
    channel are refused, since Pillow would clip them to white. Links are followed.

    Args:
        folder: Absolute, or relative to the raw-data folder.

    Raises:
        UserError: The folder does not exist; train/ and test/ have different classes; or a file is
            not a complete image, has another size than the others, is larger than `MAX_PIXELS` or
            `MAX_BYTES`, or has a name that is not text. The message lists the first errors.
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
    train = _read_split(root / "train", classes, errors)
    test = _read_split(root / "test", classes, errors)
    _check_sizes({"train": train, "test": test}, errors)
    if errors:
        shown = "\n".join(f"  - {error}" for error in errors[:MAX_ERRORS])
        more = len(errors) - MAX_ERRORS
        rest = f"\n  … and {more} more" if more > 0 else ""
        raise UserError(
            f"{root} has images that can't be used ({len(errors)}):\n{shown}{rest}\n"
            f"Expected: complete square images, all of one size. Fix or remove these files."
        )
    return RawData(classes, _stack(train, classes), _numbered(_stack(test, classes)))


Pictures = dict[str, np.ndarray]  # `class/file` → `[H, W, 3]` uint8


def _find_classes(root: Path) -> list[str]:
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(
                f"{root} has no folder {half}/.\nExpected: train/<class>/* and test/<class>/*."
            )
        found[half] = {path.name for path in _visible(root / half) if path.is_dir()}
        if odd := [name for name in sorted(found[half]) if not _is_text(name)]:
            raise UserError(f"{root}/{half}: class {odd[0]!a}: {_NAME_ERROR}.\nRename that folder.")
    if lonely := sorted(found["train"] ^ found["test"]):
        raise UserError(
            f"{root}: classes that are in only one of train/ and test/: {', '.join(lonely)}.\n"
            f"Every class needs images in both."
        )
    if not found["train"]:
        raise UserError(f"{root}/train has no class folders.\nExpected: train/<class>/*.")
    return sorted(found["train"])


def _read_split(root: Path, classes: list[str], errors: list[str]) -> Pictures:
    files = []
    for name in classes:
        inside = [path for path in _visible(root / name) if not path.is_dir()]
        if not inside:
            errors.append(f"{root.name}/{name}: has no images")
        files += inside
    pictures: Pictures = {}
    for path in tqdm(files, desc=f"reading {root.name}", unit=" images", disable=None):
        key = f"{path.parent.name}/{path.name}"
        if not _is_text(path.name):
            errors.append(f"{root.name}/{key!a}: {_NAME_ERROR}")
            continue
        try:
            pixels = _read_picture(path)
        except _UNREADABLE as error:
            errors.append(f"{root.name}/{key}: {_reason(error)}")
            continue
        if pixels.shape[0] != pixels.shape[1]:
            errors.append(f"{root.name}/{key}: {pixels.shape[1]} × {pixels.shape[0]}, not square")
        pictures[key] = pixels
    return pictures


def _is_text(name: str) -> bool:
    return not {unicodedata.category(letter) for letter in name} & _NOT_TEXT


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


def _check_sizes(halves: dict[str, Pictures], errors: list[str]) -> None:
    """Append an error for each image whose size is not the most frequent one."""
    named = [(f"{half}/{key}", p.shape[:2]) for half, ps in halves.items() for key, p in ps.items()]
    sizes = [size for _, size in named]
    if len(set(sizes)) < 2:
        return
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size))
    errors += [
        f"{name}: {size[1]} × {size[0]}, others are {usual[1]} × {usual[0]}"
        for name, size in named
        if size != usual and size[0] == size[1]
    ]


def _stack(pictures: Pictures, classes: list[str]) -> RawSplit:
    labels = np.array([classes.index(key.split("/")[0]) for key in pictures], np.int64)
    return RawSplit(np.stack(list(pictures.values())), labels, files=list(pictures))


def _numbered(split: RawSplit) -> RawSplit:
    """Return the images in the order of their numbers, if every file is named by one of its own."""
    assert split.files is not None
    stems = [PurePath(name).stem for name in split.files]
    if not all(stem.isascii() and stem.isdigit() and len(stem) <= MAX_DIGITS for stem in stems):
        return split
    numbers = np.array(stems, np.int64)
    order = np.argsort(numbers, kind="stable")
    if (np.diff(numbers[order]) == 0).any():
        return split
    files = [split.files[i] for i in order]
    return RawSplit(split.images[order], split.labels[order], index=numbers[order], files=files)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name))


def _reason(error: Exception) -> str:
    text = str(error)
    return "not an image" if text.startswith("cannot identify") else text
