"""The prepared arrays on disk: a few memory-mappable `.npy` files and one `dataset.json`."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarpipe.errors import UserError

PREPARED = Path("data/prepared")
SHORT_FINGERPRINT = 16  # hexadecimal digits


@dataclass(frozen=True)
class Split:
    """Images of one split, in rising order of their original index."""

    images: NDArray[np.uint8]
    """`[N, H, W, 3]` uint8, memory-mapped."""
    labels: NDArray[np.int64]
    """`[N]` int64."""
    index: NDArray[np.int64]
    """`[N]` position in the source's train or test images."""

    def __len__(self) -> int:
        return len(self.labels)

    def positions(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where images stand in this split, by their original index.

        Raises:
            KeyError: One of them is not in this split.
        """
        places = np.searchsorted(self.index, index).clip(max=len(self) - 1)
        if not np.array_equal(self.index[places], index):
            raise KeyError("an original index that is not in this split")
        return places


@dataclass(frozen=True)
class Prepared:
    """Everything the later stages know of the data."""

    folder: Path
    card: dict[str, Any]
    """What `dataset.json` holds."""

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
        """SHA-256 of all that was read from the source."""
        return str(self.card["fingerprint"])

    @property
    def short_fingerprint(self) -> str:
        """Its first digits, as in `reports/dataset.json`: enough to tell data sets apart."""
        return self.fingerprint[:SHORT_FINGERPRINT]

    @property
    def test_files(self) -> list[str] | None:
        """`class/file name` of each test image, where there are files."""
        return self.card["test_files"]

    @cached_property
    def train(self) -> Split:
        """The images to train on."""
        return self._split("train")

    @cached_property
    def val(self) -> Split:
        """The held-out images; may be none."""
        return self._split("val")

    @cached_property
    def test(self) -> Split:
        """The test images."""
        return self._split("test")

    @cached_property
    def test_masks(self) -> NDArray[np.bool_] | None:
        """`[N, H, W]`, true on each test image's object, where it is known."""
        name = self.card["test_masks"]
        return np.load(self.folder / name, mmap_mode="r") if name else None

    def _split(self, name: str) -> Split:
        images, labels, index = (
            np.load(self.folder / f"{name}_{what}.npy", mmap_mode="r")
            for what in ("images", "labels", "index")
        )
        return Split(images, labels, index)


def load_prepared(folder: Path = PREPARED) -> Prepared:
    """Open what `prepare` wrote.

    Raises:
        UserError: It is not there.
    """
    card = folder / "dataset.json"
    if not card.is_file():
        raise UserError(f"{card} does not exist. Run `dvc repro prepare` first.")
    return Prepared(folder, json.loads(card.read_text(encoding="utf-8")))
