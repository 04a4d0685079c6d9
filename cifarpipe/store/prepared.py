"""The prepared arrays on disk: a few memory-mappable `.npy` files and one `dataset.json`."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import file_digest

PREPARED = Path("data/prepared")
CARD = "dataset.json"
SEAL = "sha256_of_all_else"
CARD_KEYS = {
    "source", "fingerprint", "seed", "classes", "image_size", "mean", "std", "images", "per_class",
    "shared", "conflicting", "files", "test_masks", "sha256",
}  # fmt: skip
SHORT_FINGERPRINT = 16  # hexadecimal digits


@dataclass(frozen=True)
class Split:
    """The images of one split, in ascending order of their original index."""

    images: NDArray[np.uint8]
    """`[N, H, W, 3]` uint8, memory-mapped."""
    labels: NDArray[np.int64]
    """`[N]` int64."""
    index: NDArray[np.int64]
    """`[N]` position in the source's train or test images."""
    files: list[str] | None = None
    """`class/file name` of each image, if the source has files."""

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, positions: NDArray[np.int64]) -> list[str]:
        """Return the files of the images at some positions; empty texts without files."""
        files = self.files
        return ["" if files is None else files[position] for position in positions]

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions in this split of images given by their original index.

        Raises:
            KeyError: One of them is not in this split.
        """
        places = np.searchsorted(self.index, index).clip(max=len(self) - 1)
        if not np.array_equal(self.index[places], index):
            raise KeyError("an original index that is not in this split")
        return places


@dataclass(frozen=True)
class Prepared:
    """Everything that later stages know about the data."""

    folder: Path
    card: dict[str, Any]
    """The content of `dataset.json`."""

    @property
    def classes(self) -> list[str]:
        """Class names; a label is a position in this list."""
        return list(self.card["classes"])

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.card["image_size"])

    @property
    def mean(self) -> list[float]:
        """Of each channel over the train split, in 0 … 1."""
        return list(self.card["mean"])

    @property
    def std(self) -> list[float]:
        """Of each channel over the train split, in 0 … 1."""
        return list(self.card["std"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything read from the source."""
        return str(self.card["fingerprint"])

    @property
    def short_fingerprint(self) -> str:
        """Its first digits, as in `reports/dataset.json`: enough to tell data sets apart."""
        return self.fingerprint[:SHORT_FINGERPRINT]

    @property
    def split_fingerprint(self) -> str:
        """SHA-256 of the fingerprint and of the train and validation indices."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for split in (self.train, self.val):
            digest.update(split.index.astype("<i8").tobytes() + b"|")
        return digest.hexdigest()

    @cached_property
    def train(self) -> Split:
        """The images to train on."""
        return self._split("train")

    @cached_property
    def val(self) -> Split:
        """The held-out images; may be empty."""
        return self._split("val")

    @cached_property
    def test(self) -> Split:
        """The test images."""
        return self._split("test")

    @cached_property
    def test_masks(self) -> NDArray[np.bool_] | None:
        """`[N, H, W]`, true on each test image's object, if the source knows it."""
        name = self.card["test_masks"]
        return self._array(name) if name else None

    def _split(self, name: str) -> Split:
        images, labels, index = (
            self._array(f"{name}_{what}.npy") for what in ("images", "labels", "index")
        )
        return Split(images, labels, index, self.card["files"][name])

    def _array(self, name: str) -> NDArray[Any]:
        """Open a file of the folder after checking its digest."""
        path = self.folder / name
        if not path.is_file() or file_digest(path) != self.card["sha256"][name]:
            raise _damaged(path)
        return np.load(path, mmap_mode="r")


def load_prepared(folder: Path = PREPARED) -> Prepared:
    """Open what the stage `prepare` wrote.

    Raises:
        UserError: It is missing, or was changed.
    """
    path = folder / CARD
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro prepare` first.")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        sealed = card.pop(SEAL) == card_digest(card) and card.keys() >= CARD_KEYS
    except (ValueError, KeyError, AttributeError, TypeError):
        sealed = False
    if not sealed:
        raise _damaged(path)
    return Prepared(folder, card)


def seal(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card with its own digest added."""
    return card | {SEAL: card_digest(card)}


def card_digest(card: dict[str, Any]) -> str:
    """Return the SHA-256 of a card's content."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is not what `prepare` writes.\nDelete {path.parent} and run `dvc repro prepare`."
    )
