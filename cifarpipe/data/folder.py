"""A folder of pictures: `train/<class>/*` and `test/<class>/*`, any format that Pillow reads."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.data.raw import RawData, RawSplit
from cifarpipe.store.paths import RAW_ROOT_VARIABLE, raw_root

SHOWN_FAULTS = 10
# A small file can unpack to gigabytes: what is larger than this is never decoded.
MAX_PIXELS = 1024 * 1024
MAX_BYTES = 32 * MAX_PIXELS  # of a file, which some decoders read whole
# All that Pillow's decoders raise on a broken file; AVIF's and DDS's raise RuntimeError.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, RuntimeError,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
# Kinds of character that have no place in a name: control, lone surrogates, ends of lines.
_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}
_NAME_FAULT = "the name has a control character or is not UTF-8"


def read_folder(folder: str) -> RawData:
    """Read all pictures, classes and files in alphabetical order; hidden files are passed over.

    Grey-scale, CMYK and palette pictures are converted to RGB; those of more than 8 bits per
    channel, which Pillow would clip to white, are refused. Links are followed.

    Args:
        folder: Absolute, or relative to the raw-data root.

    Raises:
        UserError: The folder does not exist, its two halves have different classes, or a file is
            no whole picture, not as large as the others, beyond `MAX_PIXELS` or `MAX_BYTES`, or has
            a name that is no text; the first faults are named.
    """
    root = raw_root() / Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(
            f"data.folder is {folder!r}, and there is no folder {root}.\n"
            f"A relative one is looked up in ${RAW_ROOT_VARIABLE} (now {raw_root()}). Set that "
            f"variable, or give the right folder."
        )
    classes = _find_classes(root)
    faults: list[str] = []
    train = _read_split(root / "train", classes, faults)
    test = _read_split(root / "test", classes, faults)
    _check_sizes({"train": train, "test": test}, faults)
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:SHOWN_FAULTS])
        more = len(faults) - SHOWN_FAULTS
        rest = f"\n  … and {more} more" if more > 0 else ""
        raise UserError(
            f"{root} has pictures that can't be used ({len(faults)}):\n{shown}{rest}\n"
            f"Wanted: whole square pictures, all of one size. Mend or remove these files."
        )
    return RawData(classes, _stack(train, list(classes)), _stack(test, list(classes)))


Pictures = dict[str, np.ndarray]  # `class/file` → `[H, W, 3]` uint8


def _find_classes(root: Path) -> list[str]:
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(
                f"{root} has no folder {half}/.\nWanted: train/<class>/* and test/<class>/*."
            )
        found[half] = {path.name for path in _visible(root / half) if path.is_dir()}
        if odd := [name for name in sorted(found[half]) if not _is_text(name)]:
            raise UserError(f"{root}/{half}: class {odd[0]!a}: {_NAME_FAULT}.\nRename that folder.")
    if lonely := sorted(found["train"] ^ found["test"]):
        raise UserError(
            f"{root}: classes that stand in only one of train/ and test/: {', '.join(lonely)}.\n"
            f"Every class needs pictures in both."
        )
    if not found["train"]:
        raise UserError(f"{root}/train has no class folders.\nWanted: train/<class>/*.")
    return sorted(found["train"])


def _read_split(root: Path, classes: list[str], faults: list[str]) -> Pictures:
    files = []
    for name in classes:
        inside = [path for path in _visible(root / name) if not path.is_dir()]
        if not inside:
            faults.append(f"{root.name}/{name}: has no pictures")
        files += inside
    pictures: Pictures = {}
    for path in tqdm(files, desc=f"reading {root.name}", unit=" pictures", disable=None):
        key = f"{path.parent.name}/{path.name}"
        if not _is_text(path.name):
            faults.append(f"{root.name}/{key!a}: {_NAME_FAULT}")
            continue
        try:
            pixels = _read_picture(path)
        except _UNREADABLE as error:
            faults.append(f"{root.name}/{key}: {_reason(error)}")
            continue
        if pixels.shape[0] != pixels.shape[1]:
            faults.append(f"{root.name}/{key}: {pixels.shape[1]} × {pixels.shape[0]}, not square")
        pictures[key] = pixels
    return pictures


def _is_text(name: str) -> bool:
    return not {unicodedata.category(letter) for letter in name} & _NO_TEXT


def _read_picture(path: Path) -> np.ndarray:
    """Return `[H, W, 3]` uint8, or raise one of `_UNREADABLE`."""
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("not a file, or a link that leads nowhere")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"{picture.width} × {picture.height}, more than {MAX_PIXELS:,} pixels"
                )
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits per pixel and channel (mode {picture.mode})")
            return np.asarray(picture.convert("RGB"))


def _check_sizes(halves: dict[str, Pictures], faults: list[str]) -> None:
    """Name the pictures whose size is not that of most."""
    named = [(f"{half}/{key}", p.shape[:2]) for half, ps in halves.items() for key, p in ps.items()]
    sizes = [size for _, size in named]
    if len(set(sizes)) < 2:
        return
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size))
    faults += [
        f"{name}: {size[1]} × {size[0]}, others are {usual[1]} × {usual[0]}"
        for name, size in named
        if size != usual and size[0] == size[1]
    ]


def _stack(pictures: Pictures, classes: list[str]) -> RawSplit:
    labels = np.array([classes.index(key.split("/")[0]) for key in pictures], np.int64)
    return RawSplit(np.stack(list(pictures.values())), labels, files=list(pictures))


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "Thumbs.db"
    )


def _reason(error: Exception) -> str:
    text = str(error)
    return "not a picture" if text.startswith("cannot identify") else text
