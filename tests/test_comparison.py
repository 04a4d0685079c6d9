"""Comparisons of models, against counts by hand."""

import numpy as np
import pytest

from cifarpipe.report.comparison import compare_pairs, lone_errors, shared_errors
from cifarpipe.results.significance import holm, mcnemar


@pytest.mark.parametrize(
    ("first", "second", "p"),
    # 2 × the lower tail of the binomial distribution of their sum and 1/2, at most 1
    [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 2**6), (0, 6, 2 / 2**6), (8, 1, 2 * 10 / 2**9)],
)
def test_mcnemar_p_values_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 0.04 is not below 2 * 0.03
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_corrected_p_values_by_hand(p: list[float], corrected: list[float]) -> None:
    assert holm(np.array(p)) == pytest.approx(corrected)


TRUE = np.array(list("aabbcc"), object)
PREDICTED = {
    "one": np.array(list("aabbca"), object),  # wrong in the last
    "two": np.array(list("abbcca"), object),  # wrong in the second, fourth and last
    "none": np.array(list("bbaaaa"), object),
}
IS_CORRECT = {name: predicted == TRUE for name, predicted in PREDICTED.items()}


def test_pair_counts_by_hand() -> None:
    table = compare_pairs(PREDICTED, TRUE)
    assert table.values.tolist() == [
        ["one", "two", round(4 / 6, 4), 3, 2, 0, 1, 0.5, 0.5],
        ["one", "none", round(1 / 6, 4), 0, 5, 0, 1, 0.0625, 0.1875],
        ["two", "none", round(2 / 6, 4), 0, 3, 0, 3, 0.25, 0.5],
    ]
    counts = table[["both_correct", "only_first", "only_second", "both_wrong"]]
    assert (counts.sum(axis=1) == 6).all()


def test_a_single_model_has_no_pair() -> None:
    table = compare_pairs({"one": PREDICTED["one"]}, TRUE)
    assert len(table) == 0
    assert {"p", "p_holm"} <= set(table)


def test_shared_and_lone_errors_by_hand() -> None:
    assert shared_errors(IS_CORRECT).values.tolist() == [[0, 0], [1, 3], [2, 2], [3, 1]]
    assert lone_errors(IS_CORRECT) == {"one": 0, "two": 0, "none": 3}
    assert lone_errors({"one": IS_CORRECT["one"]}) == {"one": 1}
