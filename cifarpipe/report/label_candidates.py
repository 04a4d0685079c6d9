"""Candidates for label errors, by confident learning."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.store.prepared import Split

Probabilities = NDArray[np.float64]


def confident_disagreements(
    probabilities: Probabilities, labels: NDArray[np.int64]
) -> pd.DataFrame:
    """Find labels that are probably wrong by confident learning (arXiv:1911.00068).

    A prediction should not depend on the image's own label, else wrong labels confirm themselves.
    Each class has a threshold: the mean probability of this class on the images that are labelled
    with it. An image is a candidate if, of all classes whose probability reaches their threshold,
    the most probable one is not its label, but more probable than that.

    Args:
        probabilities: `[N, classes]`.
        labels: `[N]`.

    Returns:
        Columns `position`, `suggested` (label), `label_probability` and `suggested_probability`;
        the label that is least probable first.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    own = probabilities[rows, labels]
    members = np.bincount(labels, minlength=classes)
    # A class without images has no threshold to reach.
    thresholds = np.bincount(labels, own, classes) / np.where(members, members, 1)
    reached = np.where((probabilities >= thresholds) & (members > 0), probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    found = np.flatnonzero((suggested != labels) & (reached.max(axis=1) > own))
    table = pd.DataFrame(
        {
            "position": found,
            "suggested": suggested[found],
            "label_probability": own[found],
            "suggested_probability": reached.max(axis=1)[found],
        }
    )
    order = ["label_probability", "suggested_probability"]
    return table.sort_values(order, ascending=[True, False], kind="stable", ignore_index=True)


def label_candidates(
    splits: Sequence[tuple[str, Split, Probabilities]], classes: Sequence[str]
) -> pd.DataFrame:
    """Return the candidates of some splits.

    Args:
        splits: Name, images, and `[N, classes]` probabilities of each split.
        classes: Names, by label.

    Returns:
        Columns `split`, `position`, `index` and `file` (of the image; empty without files), `label`
        and `suggested` (names), `label_probability`, `suggested_probability`; the label that is
        least probable first.
    """
    names = np.array(classes, dtype=object)
    tables = []
    for split, images, probabilities in splits:
        table = confident_disagreements(probabilities, np.asarray(images.labels))
        position = table.position.to_numpy(np.int64)
        table.insert(0, "split", split)
        table.insert(2, "index", images.index[position])
        table.insert(3, "file", images.names(position))
        table.insert(4, "label", names[images.labels[position]])
        table["suggested"] = names[table.suggested.to_numpy(np.int64)]
        tables.append(table)
    return pd.concat(tables, ignore_index=True).round(4)
