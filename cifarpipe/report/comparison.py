"""Compare the models on the same test images."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.results.significance import holm, mcnemar

Hits = NDArray[np.bool_]


def compare_pairs(
    predicted: Mapping[str, NDArray[np.object_]], true: NDArray[np.object_]
) -> pd.DataFrame:
    """Return a row per pair of models.

    Args:
        predicted: `[N]` predicted classes of each model.
        true: `[N]` true classes.

    Returns:
        Columns `first`, `second`, `agree` (fraction of images with equal predictions),
        `both_correct`, `only_first`, `only_second`, `both_wrong` (images), `p` (McNemar's test) and
        `p_holm` (corrected for the number of pairs).
    """
    columns = [
        "first",
        "second",
        "agree",
        "both_correct",
        "only_first",
        "only_second",
        "both_wrong",
        "p",
    ]
    rows = []
    for first, second in combinations(predicted, 2):
        one, two = predicted[first] == true, predicted[second] == true
        counts = [int(part.sum()) for part in (one & two, one & ~two, ~one & two, ~one & ~two)]
        assert sum(counts) == len(true), "each image is correct or wrong for either model"
        agree = float((predicted[first] == predicted[second]).mean())
        rows.append([first, second, round(agree, 4), *counts, mcnemar(counts[1], counts[2])])
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table.p.to_numpy(float)))


def shared_errors(is_correct: Mapping[str, Hits]) -> pd.DataFrame:
    """Count images by the number of models that predict them wrongly.

    Args:
        is_correct: `[N]` for each model, whether its prediction is correct.

    Returns:
        Columns `wrong_models` (0 to all) and `images`.
    """
    wrong = np.sum([~hits for hits in is_correct.values()], axis=0)
    images = np.bincount(wrong, minlength=len(is_correct) + 1)
    errors = sum(int((~hits).sum()) for hits in is_correct.values())
    assert int((images * np.arange(len(images))).sum()) == errors, "errors must add up"
    return pd.DataFrame({"wrong_models": np.arange(len(images)), "images": images})


def lone_errors(is_correct: Mapping[str, Hits]) -> dict[str, int]:
    """Return for each model the number of images that it alone predicts wrongly."""
    wrong = np.sum([~hits for hits in is_correct.values()], axis=0)
    return {name: int((~hits & (wrong == 1)).sum()) for name, hits in is_correct.items()}
