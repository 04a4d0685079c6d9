"""Read a folder of images: `train/<class>/*` and `test/<class>/*`, in any format of Pillow."""

import tempfile
import unicodedata
from pathlib import Path

import numpy as np

from cifarpipe.config.errors import UserError
from cifarpipe.data.decoding import decode_all
from cifarpipe.data.names import is_ignored, is_text
from cifarpipe.data.raw import Images, Labels, RawData, RawSplit
from cifarpipe.store.outputs import cannot_write
from cifarpipe.store.paths import RAW_ROOT_VARIABLE, raw_path, raw_root
from cifarpipe.store.prepared import PREPARED

MAX_ERRORS = 10  # listed in a message
MAX_BYTES = 32 * 1024 * 1024  # of a file, of which several are decoded at a time
MAX_DIGITS = 15  # of a file's number: the report's page can hold it, below 2 to the power of 53
_NAME_ERROR = "the name has a control character or is not UTF-8"


def read_folder(folder: str, image_size: int | None = None) -> RawData:
    """Read all images; classes and files are in alphabetical order, hidden files are ignored.

    If all test files are named by distinct whole numbers, such as `ship/8117.png`, these are the
    images' original index and order: files that others published about the images, by index, fit.
    Links are followed.

    Without `image_size`, images keep their size, as by `open_exact`. With it, images of any shape
    are converted as by `open_picture`, and kept in a temporary file.

    Args:
        folder: Absolute, or relative to the raw-data folder.
        image_size: Height and width to which images are cropped and resized; None if they are
            square and all of one size.

    Raises:
        UserError: The folder does not exist; train/ and test/ have different classes; a class has
            no images, or a folder in it; or a file has a name that is not text, or can't be used:
            `decode_all` says why, or without `image_size` its size is not that of the others. The
            message lists the first errors. Or there is no space for the temporary file.
    """
    root = raw_path(folder)
    if not root.is_dir():
        problem = f"{root} is a file" if root.exists() else f"there is no folder {root}"
        relative = (
            f"A relative path is looked up in ${RAW_ROOT_VARIABLE} (now {raw_root()}). Set that "
            f"variable, or correct data.folder."
        )
        absolute = Path(folder).expanduser().is_absolute()
        advice = "Correct data.folder." if absolute else relative
        raise UserError(f"data.folder is {folder!r}, but {problem}.\n{advice}")
    folders = _class_folders(root)
    classes = sorted(folders["train"])
    errors: list[str] = []
    train, test = (
        _find_files(half, [folders[half][name] for name in classes], errors)
        for half in ("train", "test")
    )
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
        sizes, resize = "images of any size", ""
        if image_size is None:
            sizes = "square images, all of one size"
            resize = ", or set `data.image_size`, which crops and resizes images of any size"
        raise UserError(
            f"{root} can't be used ({len(errors)} problem{'s' if len(errors) > 1 else ''}):\n"
            f"{shown}{rest}\n"
            f"Expected: in each class folder, complete {sizes}, and nothing else. Fix or remove "
            f"these files{resize}."
        )

    def split(files: list[Path], images: Images, index: Labels | None) -> RawSplit:
        labels = np.array([classes.index(_composed(file.parent.name)) for file in files], np.int64)
        names = [f"{file.parent.name}/{file.name}" for file in files]
        return RawSplit(images, labels, index=index, files=names)

    count = len(train)
    return RawData(
        classes, split(train, images[:count], None), split(test, images[count:], numbers)
    )


def _class_folders(root: Path) -> dict[str, dict[str, Path]]:
    """Return the folder of each class in `train` and in `test`, which have the same classes."""
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(
                f"{root} has no folder {half}/.\nExpected: train/<class>/* and test/<class>/*, in "
                f"lowercase."
            )
        folders = [path for path in _visible(root / half) if path.is_dir()]
        if odd := [path.name for path in folders if not is_text(path.name)]:
            raise UserError(f"{root}/{half}: class {odd[0]!a}: {_NAME_ERROR}.\nRename that folder.")
        found[half] = {_composed(path.name): path for path in folders}
        if len(found[half]) < len(folders):
            names = [_composed(path.name) for path in folders]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(
                f"{root}/{half}: two folders are named {twice}: their names look the same, but are "
                f"encoded differently.\nPut their images into one of them."
            )
    train, test = map(set, found.values())
    lonely = [
        f"only in {half}/: {', '.join(sorted(names))}"
        for half, names in (("train", train - test), ("test", test - train))
        if names
    ]
    if lonely:
        raise UserError(
            f"{root}: some classes are {'; '.join(lonely)}.\nEvery class needs images in both."
        )
    if not train:
        raise UserError(f"{root}/train has no class folders.\nExpected: train/<class>/*.")
    return found


def _composed(name: str) -> str:
    """Return a name in the form in which an accented letter is one character (Unicode's NFC).

    macOS may write it as two.
    """
    return unicodedata.normalize("NFC", name)


def _find_files(half: str, folders: list[Path], errors: list[str]) -> list[Path]:
    """Return the files of one half, class by class; unusable names become errors."""
    found = []
    for folder in folders:
        name, inside = folder.name, _visible(folder)
        if not inside:
            errors.append(f"{half}/{name}: has no images")
        for path in inside:
            if not is_text(path.name):
                errors.append(f"{half}/{f'{name}/{path.name}'!a}: {_NAME_ERROR}")
            elif path.is_dir():
                errors.append(f"{half}/{name}/{path.name}: a folder; images in it are not read")
            elif problem := _unusable(path):
                errors.append(f"{half}/{name}/{path.name}: {problem}")
            else:
                found.append(path)
    return found


def _unusable(path: Path) -> str | None:
    """Return why a file is not read at all: it is huge, or a broken link."""
    try:
        length = path.stat().st_size
    except OSError as error:
        return error.strerror or str(error)
    return f"{length:,} bytes, more than {MAX_BYTES:,}" if length > MAX_BYTES else None


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
    for file, pixels in zip(files, decode_all(files, None), strict=True):
        name = file.relative_to(root).as_posix()
        if isinstance(pixels, str):
            errors.append(f"{name}: {pixels}")
        else:
            pictures[name] = pixels
    sizes = [len(pixels) for pixels in pictures.values()]
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size), default=None)
    errors += [
        f"{name}: {size} × {size}, others are {usual} × {usual}"
        for name, size in zip(pictures, sizes, strict=True)
        if size != usual
    ]
    return np.stack(list(pictures.values())) if pictures and not errors else None


def _resize_all(files: list[Path], size: int, root: Path, errors: list[str]) -> Images | None:
    """Return images `[N, size, size, 3]`, memory-mapped; None if there are no files.

    An image that can't be used is black; `errors` gets a line for it.
    """
    if not files:
        return None
    shape = (size, size, 3)
    try:
        PREPARED.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=PREPARED.parent) as storage:
            # Written, not mapped: a mapped write to a full disk kills the process.
            for file, pixels in zip(files, decode_all(files, size), strict=True):
                if isinstance(pixels, str):
                    errors.append(f"{file.relative_to(root).as_posix()}: {pixels}")
                    pixels = np.zeros(shape, np.uint8)
                storage.write(pixels.data)
            storage.flush()
            return np.memmap(storage, np.uint8, "r", shape=(len(files), *shape))
    except OSError as error:
        raise cannot_write(PREPARED, error) from error


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_ignored(path.name))
