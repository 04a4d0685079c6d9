"""Select a model's errors to show, and correct images to compare them with."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd

SHOWN = ["index", "file", "true", "predicted", "confidence", "true_probability"]


def select_errors(
    predictions: pd.DataFrame, classes: Sequence[str], *, count: int, seed: int
) -> pd.DataFrame:
    """Select random errors, stratified by true class.

    Classes take turns, in a random order that is drawn once: each gives one of its errors at
    random, until there are `count` or none is left.

    Args:
        predictions: A row per test image.
        classes: Names, by label.
        count: At most this many.
        seed: Of the draws.

    Returns:
        The selected rows, sorted by true class and index.
    """
    errors = predictions[predictions.true != predictions.predicted]
    wanted = dict.fromkeys(classes, count)
    return _take_turns(errors, classes, wanted, count, np.random.default_rng(seed))


def select_correct(
    predictions: pd.DataFrame, classes: Sequence[str], errors: pd.DataFrame, *, seed: int
) -> pd.DataFrame:
    """Select as many random correct images as there are `errors`, matched by true class.

    If a class has too few correct images, other classes fill the gap.

    Returns:
        The selected rows, sorted by true class and index.
    """
    correct = predictions[predictions.true == predictions.predicted]
    rng = np.random.default_rng(seed + 1)
    wanted = {name: int((errors.true == name).sum()) for name in classes}
    matched = _take_turns(correct, classes, wanted, len(errors), rng)
    rest = correct.drop(matched.index)
    missing = len(errors) - len(matched)
    fill = _take_turns(rest, classes, dict.fromkeys(classes, missing), missing, rng)
    return _ordered(pd.concat([matched, fill]), classes)


def _take_turns(
    rows: pd.DataFrame,
    classes: Sequence[str],
    wanted: dict[str, int],
    count: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Take up to `count` rows, at most `wanted` of each class, as evenly as possible."""
    queues = {
        name: rng.permutation(rows.index[rows.true == name])[: wanted.get(name, 0)]
        for name in classes
    }
    turns = [queues[classes[label]] for label in rng.permutation(len(classes))]
    selected = [row for lap in zip_longest(*turns) for row in lap if row is not None]
    return _ordered(rows.loc[selected[:count], SHOWN], classes)


def _ordered(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    labels = rows.true.map({name: label for label, name in enumerate(classes)})
    return rows.assign(label=labels).sort_values(["label", "index"]).drop(columns="label")
