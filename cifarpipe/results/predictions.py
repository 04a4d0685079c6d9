"""The predictions table: a row per test image, which every later stage reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from cifarpipe.config.errors import UserError
from cifarpipe.results.tables import read_table
from cifarpipe.store.prepared import Prepared, Split

ROUNDING = 1e-4  # above any difference that rounding makes to a logit or a probability


def predictions_table(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    classes: Sequence[str],
    files: Sequence[str] | None,
) -> pd.DataFrame:
    """Return a row per image.

    Args:
        logits: `[N, classes]`.
        labels: `[N]`.
        index: `[N]` original index of each image.
        classes: Names, by label.
        files: `class/file name` of each image, if the source has files.

    Returns:
        Columns `index`, `file` (empty without files), `true` and `predicted` (names), `confidence`
        and `true_probability` (softmax of the predicted and of the true class), and `logit_0`,
        `logit_1`, … by label.
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    rows = np.arange(len(labels))
    names = np.array(classes, dtype=object)
    table = pd.DataFrame(
        {
            "index": index,
            "file": files if files is not None else "",
            "true": names[labels],
            "predicted": names[predicted],
            "confidence": probabilities[rows, predicted].round(6),
            "true_probability": probabilities[rows, labels].round(6),
        }
    )
    columns = _logit_columns(len(classes))
    return pd.concat([table, pd.DataFrame(logits.round(5), columns=columns)], axis=1)


def logits_of(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the logits `[N, classes]` of a predictions table."""
    return table.filter(regex=r"^logit_\d+$").to_numpy(np.float64)


def read_predictions(path: Path, data: Prepared) -> pd.DataFrame:
    """Read a predictions table and check it against the test images.

    Its columns are redundant, so that a changed digit is noticed.

    Args:
        path: The CSV file.
        data: The prepared data that was evaluated.

    Raises:
        UserError: The file is missing, damaged, or of other images.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro`, or `dvc pull` in a clone.")
    table = read_table(path)
    if problem := _find_problem(table, data.test, data.classes, data.test.files):
        raise UserError(
            f"{path} is not what `evaluate` wrote for these test images: {problem}.\n"
            f"Delete it and run `dvc repro`."
        )
    return table


def _find_problem(
    table: pd.DataFrame, test: Split, classes: Sequence[str], files: Sequence[str] | None
) -> str | None:
    """Compare a table with the one that its own logits give; return the first difference."""
    if len(table) != len(test):
        return f"{len(table)} rows, not {len(test)}"
    try:
        logits = table[_logit_columns(len(classes))].to_numpy(np.float32)
    except (KeyError, ValueError):
        return "logit columns are missing"
    expected = predictions_table(logits, test.labels, test.index, classes, files)
    if list(table) != list(expected):
        return "it has other columns"
    for column in ("index", "file", "true"):
        if table[column].tolist() != expected[column].tolist():
            return f"column `{column}` does not match the test split"
    for column in ("confidence", "true_probability"):
        found = pd.to_numeric(table[column], errors="coerce")
        if not np.allclose(found, expected[column], rtol=0, atol=ROUNDING):
            return f"column `{column}` does not match the logits"
    labels = {name: label for label, name in enumerate(classes)}
    differing = np.flatnonzero(table.predicted != expected.predicted)
    for row in differing:  # fine only if rounding made two logits equal
        label = labels.get(table.predicted[row])
        if label is None or logits[row].max() - logits[row, label] > ROUNDING:
            return "column `predicted` does not match the largest logit"
    return None


def _logit_columns(classes: int) -> list[str]:
    return [f"logit_{label}" for label in range(classes)]
