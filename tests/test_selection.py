"""Selected errors and correct images: number, classes, order and seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.evaluation.selection import SHOWN, select_correct, select_errors

CLASSES = ["zebra", "ant", "cow", "bee"]  # not in alphabetical order

Counts = Sequence[tuple[int, int]]


def make_predictions(counts: Counts, seed: int = 0) -> pd.DataFrame:
    """Return a table with the given (errors, correct) images of each class, in random order."""
    pairs = [
        (name, CLASSES[(label + 1 + i % 3) % 4] if wrong else name)
        for label, (name, (errors, correct)) in enumerate(zip(CLASSES, counts, strict=True))
        for wrong, count in ((True, errors), (False, correct))
        for i in range(count)
    ]
    rng = np.random.default_rng(seed)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    return pd.DataFrame(
        {
            "index": np.arange(len(shuffled)) * 7 + 5,  # never the row number
            "file": "",
            "true": [true for true, _ in shuffled],
            "predicted": [predicted for _, predicted in shuffled],
            "confidence": 0.5,
            "true_probability": 0.25,
            "logit_0": 1.0,
        }
    )


def per_class(rows: pd.DataFrame) -> list[int]:
    return [int((rows.true == name).sum()) for name in CLASSES]


def assert_in_order(rows: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Check that rows are those of the table, each once, sorted by class and index."""
    keys = list(zip(rows.true.map(CLASSES.index), rows["index"], strict=True))
    assert keys == sorted(set(keys))
    assert list(rows) == SHOWN
    expected = predictions.set_index("index").loc[rows["index"]].reset_index()
    assert rows.reset_index(drop=True).equals(expected[SHOWN])


COUNTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 30), st.integers(0, 5))
def test_errors_are_spread_evenly_over_classes(counts: Counts, wanted: int, seed: int) -> None:
    predictions = make_predictions(counts)
    rows = select_errors(predictions, CLASSES, count=wanted, seed=seed)
    available = [errors for errors, _ in counts]
    selected = per_class(rows)
    assert (rows.true != rows.predicted).all()
    assert len(rows) == min(wanted, sum(available))
    assert_in_order(rows, predictions)
    pairs = zip(selected, available, strict=True)
    not_exhausted = [count for count, most in pairs if count < most]
    # No class has two more than a class with errors left.
    assert not not_exhausted or max(selected) <= min(not_exhausted) + 1


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 30), st.integers(0, 5))
def test_correct_images_match_errors_by_class(counts: Counts, wanted: int, seed: int) -> None:
    predictions = make_predictions(counts)
    errors = select_errors(predictions, CLASSES, count=wanted, seed=seed)
    rows = select_correct(predictions, CLASSES, errors, seed=seed)
    available = [correct for _, correct in counts]
    assert (rows.true == rows.predicted).all()
    assert len(rows) == min(len(errors), sum(available))
    assert_in_order(rows, predictions)
    matched = zip(per_class(rows), per_class(errors), available, strict=True)
    assert all(count >= min(wanted, correct) for count, wanted, correct in matched)


def test_errors_by_hand() -> None:
    """11 of (1, 9, 2, 9): classes with few errors give all, the others share the rest."""
    rows = select_errors(
        make_predictions([(1, 0), (9, 0), (2, 0), (9, 0)]), CLASSES, count=11, seed=0
    )
    assert per_class(rows) == [1, 4, 2, 4]
    assert rows.true.drop_duplicates().tolist() == CLASSES


def test_correct_by_hand() -> None:
    """No cow is correct: images of the other classes, evenly, replace them."""
    predictions = make_predictions([(2, 9), (2, 9), (3, 0), (2, 9)])
    errors = select_errors(predictions, CLASSES, count=9, seed=0)
    assert per_class(errors) == [2, 2, 3, 2]
    assert per_class(select_correct(predictions, CLASSES, errors, seed=0)) == [3, 3, 0, 3]


def test_few_errors_are_all_selected() -> None:
    predictions = make_predictions([(1, 5), (0, 5), (2, 5), (0, 5)])
    rows = select_errors(predictions, CLASSES, count=20, seed=0)
    wrong = predictions["index"][predictions.true != predictions.predicted]
    assert set(rows["index"]) == set(wrong)
    assert len(rows) == 3


@pytest.mark.parametrize("correct", [0, 5])
def test_no_errors_give_empty_tables(correct: int) -> None:
    predictions = make_predictions([(0, correct)] * 4)
    errors = select_errors(predictions, CLASSES, count=20, seed=0)
    correct_rows = select_correct(predictions, CLASSES, errors, seed=0)
    assert len(errors) == len(correct_rows) == 0
    assert list(errors) == list(correct_rows) == SHOWN


def test_all_wrong_leaves_no_correct_images() -> None:
    predictions = make_predictions([(5, 0)] * 4)
    errors = select_errors(predictions, CLASSES, count=8, seed=0)
    assert len(errors) == 8
    assert len(select_correct(predictions, CLASSES, errors, seed=0)) == 0


def test_only_the_seed_decides() -> None:
    predictions = make_predictions([(30, 30)] * 4)

    def select(seed: int) -> tuple[list[int], list[int]]:
        errors = select_errors(predictions, CLASSES, count=10, seed=seed)
        correct = select_correct(predictions, CLASSES, errors, seed=seed)
        return errors["index"].tolist(), correct["index"].tolist()

    np.random.seed(1)  # noqa: NPY002, the global state must have no effect
    first = select(3)
    np.random.seed(2)  # noqa: NPY002
    assert select(3) == first
    other = select(4)
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_class_of_the_additional_error_is_random() -> None:
    predictions = make_predictions([(5, 0)] * 4)
    more = {
        int(np.argmax(per_class(select_errors(predictions, CLASSES, count=5, seed=seed))))
        for seed in range(40)
    }
    assert more == {0, 1, 2, 3}


def test_every_error_can_be_selected() -> None:
    predictions = make_predictions([(6, 0), (0, 0), (0, 0), (0, 0)])
    found = {
        index
        for seed in range(60)
        for index in select_errors(predictions, CLASSES, count=1, seed=seed)["index"]
    }
    assert found == set(predictions["index"])
