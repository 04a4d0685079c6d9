"""The table of a network's answers: a row per test image, which every later stage reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from cifarpipe.config.errors import UserError
from cifarpipe.results.tables import read_table
from cifarpipe.store.prepared import Split

ROUNDING = 1e-4  # more than rounding changes of a logit or a probability


def predictions_table(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    classes: Sequence[str],
    files: Sequence[str] | None,
) -> pd.DataFrame:
    """Put answers into rows.

    Args:
        logits: `[N, classes]`.
        labels: `[N]`.
        index: `[N]` original index of each image.
        classes: Names, by label.
        files: `class/file name` of each image, where there are files.

    Returns:
        Columns `index`, `file` (empty where there is none), `true` and `predicted` (names),
        `confidence` and `true_probability` (softmax of the predicted and of the true class), and
        `logit_0` … by label.
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


def read_predictions(
    path: Path, test: Split, classes: Sequence[str], files: Sequence[str] | None
) -> pd.DataFrame:
    """Read such a table, if it is whole and of these test images.

    Its columns say the same thing more than once, so that a changed digit shows.

    Args:
        path: Where it is.
        test: The test images.
        classes: Names, by label.
        files: `class/file name` of each test image, where there are files.

    Raises:
        UserError: It is damaged, or of other images.
    """
    table = read_table(path)
    if fault := _find_fault(table, test, classes, files):
        raise UserError(
            f"{path} is not what `evaluate` wrote for these test images: {fault}.\n"
            f"Delete it and run `dvc repro`."
        )
    return table


def _find_fault(
    table: pd.DataFrame, test: Split, classes: Sequence[str], files: Sequence[str] | None
) -> str | None:
    """Say what is not as it would be were the table made anew from its own logits."""
    if len(table) != len(test):
        return f"{len(table)} rows, not {len(test)}"
    try:
        logits = table[_logit_columns(len(classes))].to_numpy(np.float32)
    except (KeyError, ValueError):
        return "it has no logit of each class"
    anew = predictions_table(logits, test.labels, test.index, classes, files)
    if list(table) != list(anew):
        return "it has other columns"
    for column in ("index", "file", "true"):
        if table[column].tolist() != anew[column].tolist():
            return f"column `{column}` is not theirs"
    for column in ("confidence", "true_probability"):
        told = pd.to_numeric(table[column], errors="coerce")
        if not np.allclose(told, anew[column], rtol=0, atol=ROUNDING):
            return f"column `{column}` is not the logits'"
    labels = {name: label for label, name in enumerate(classes)}
    others = np.flatnonzero(table.predicted != anew.predicted)
    for row in others:  # of equal rounded logits another one may have been the greatest
        label = labels.get(table.predicted[row])
        if label is None or logits[row].max() - logits[row, label] > ROUNDING:
            return "column `predicted` is not the greatest logit's"
    return None


def _logit_columns(classes: int) -> list[str]:
    return [f"logit_{label}" for label in range(classes)]
