"""Published findings about CIFAR-10's test labels, from files that the user has.

Accuracy is always measured on the original labels; these files show how many errors are due to
contested labels, duplicates, or images on which people disagree.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import PublicLabelFiles
from cifarpipe.report.cifar10 import CIFAR10_CLASSES, TEST_IMAGES
from cifarpipe.report.study import ModelResults
from cifarpipe.results.predictions import logits_of
from cifarpipe.store.paths import raw_path

MAJORITY = 3  # of five workers
DISAGREEMENT = 0.8  # below this fraction of people who choose the label, they disagree
Index = NDArray[np.int64]


@dataclass(frozen=True)
class PublicLabels:
    """Original indices of notable test images, and what people see in each; None if unknown."""

    contested: Index | None
    """Fewer than three of five workers chose the label alone (arXiv:2103.14749)."""
    duplicates: Index | None
    """There is an exact or near duplicate, or a very similar image, in train (arXiv:1902.00423)."""
    human: NDArray[np.float64] | None
    """`[10000, 10]` fraction of people who choose each class (CIFAR-10H, arXiv:1908.07086)."""
    missing: tuple[str, ...] = ()
    """A message for each file that does not exist."""


def load_public_labels(
    files: PublicLabelFiles | None, classes: Sequence[str], test_files: Sequence[str] | None
) -> PublicLabels:
    """Read the given files; a relative path is looked up in the raw-data folder.

    Args:
        files: Where the user has them.
        classes: Names, by label.
        test_files: `class/file name` of each test image; None: they are CIFAR-10's own archive.

    Raises:
        UserError: A file is not the expected one; or the test images are not those of CIFAR-10, or
            their files are not named by their index there.
    """
    if files is None:
        return PublicLabels(None, None, None)
    if list(classes) != CIFAR10_CLASSES:
        raise UserError(
            f"report.labels is about CIFAR-10's test images, but the classes are "
            f"{', '.join(classes)}.\nRemove it, or use these images."
        )
    stems = [PurePosixPath(name).stem for name in test_files or ()]
    if other := [
        stem
        for stem in stems
        if not (stem.isascii() and stem.isdecimal() and int(stem) < TEST_IMAGES)
    ]:
        raise UserError(
            f"report.labels needs test files that are named by their index in CIFAR-10, 0 to "
            f"{TEST_IMAGES - 1}, such as 3235.png; {len(other)} are not, for example {other[0]}."
        )
    numbers = [int(stem) for stem in stems]
    if len(set(numbers)) < len(numbers):  # then the images' index is their position
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise UserError(
            f"report.labels needs test files that are named by their index in CIFAR-10, each index "
            f"once; several files are named {twice}."
        )
    readers = {"contested": _contested, "duplicates": _duplicates, "human": _human}
    found: dict[str, Any] = dict.fromkeys(readers)
    missing = []
    for key, path in sorted(files.given().items()):
        if raw_path(path).exists():
            found[key] = _read(path, key, readers[key])
        else:
            missing.append(f"report.labels.{key}: {path} does not exist")
    return PublicLabels(**found, missing=tuple(missing))


def _read(path: str, key: str, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(raw_path(path))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"report.labels.{key}: {path} is not the expected file "
            f"({type(error).__name__}: {error}); cifarpipe/config/schema.py says which it is."
        ) from None


def _contested(path: Path) -> Index:
    entries = json.loads(path.read_text(encoding="utf-8"))
    index = [entry["id"] for entry in entries if entry["mturk"]["given"] < MAJORITY]
    return _checked(np.array(index, np.int64))


def _duplicates(path: Path) -> Index:
    return _checked(np.unique(pd.read_csv(path)["TestID"].to_numpy(np.int64)))


def _human(path: Path) -> NDArray[np.float64]:
    counts = np.load(path, allow_pickle=False).astype(np.float64)
    if counts.shape != (TEST_IMAGES, len(CIFAR10_CLASSES)) or not (counts >= 0).all():
        raise ValueError(f"its shape is {counts.shape}, not {(TEST_IMAGES, len(CIFAR10_CLASSES))}")
    return counts / counts.sum(axis=1, keepdims=True)


def _checked(index: Index) -> Index:
    if len(index) and not (index.min() >= 0 and index.max() < TEST_IMAGES):
        raise ValueError(f"an index outside 0 to {TEST_IMAGES - 1}")
    return np.sort(index)


def image_flags(
    labels: PublicLabels, model: ModelResults, classes: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return what is known about each test image, `[N]` for each flag of the page.

    Args:
        labels: Of all test images.
        model: Any model, since all have the same images.
        classes: Names, by label.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    index = model.predictions["index"].to_numpy(np.int64)
    true = model.predictions.true.map(numbers).to_numpy(np.int64)
    found = {}
    if labels.contested is not None:
        found["contested label"] = np.isin(index, labels.contested)
    if labels.human is not None:
        found["people disagree"] = labels.human[index, true] < DISAGREEMENT
    if labels.duplicates is not None:
        found["duplicate in train"] = np.isin(index, labels.duplicates)
    return found


def label_table(
    results: Sequence[ModelResults], labels: PublicLabels, classes: Sequence[str]
) -> pd.DataFrame:
    """Return a row per model and kind of image.

    Returns:
        Columns `model`, `kind`, `images`, `errors`, `accuracy` (on these images),
        `accuracy_without` (on all others), and `human_loss`: the mean cross-entropy to people's
        choices on all images, NaN if unknown.
    """
    rows = []
    for model in results:
        table = model.predictions
        index = table["index"].to_numpy(np.int64)
        loss = np.nan
        if labels.human is not None:
            log_probabilities = log_softmax(logits_of(table), axis=1)
            loss = float(-(labels.human[index] * log_probabilities).sum(axis=1).mean())
        for kind, some in image_flags(labels, model, classes).items():
            rows.append(
                {
                    "model": model.name,
                    "kind": kind,
                    "images": int(some.sum()),
                    "errors": int((~model.is_correct[some]).sum()),
                    "accuracy": model.is_correct[some].mean() if some.any() else np.nan,
                    "accuracy_without": model.is_correct[~some].mean() if (~some).any() else np.nan,
                    "human_loss": loss,
                }
            )
    return pd.DataFrame(rows).round(4)
