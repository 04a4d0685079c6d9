"""Which errors are shown: how many, of which classes, in which order, drawn by which seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.evaluation.selection import SHOWN, choose_correct, choose_errors

CLASSES = ["zebra", "ant", "cow", "bee"]  # not in the order of the alphabet

Counts = Sequence[tuple[int, int]]


def make_predictions(counts: Counts, seed: int = 0) -> pd.DataFrame:
    """Return a table with so many (errors, correct) images of each class, in mixed order."""
    pairs = [
        (name, CLASSES[(label + 1 + i % 3) % 4] if wrong else name)
        for label, (name, (errors, correct)) in enumerate(zip(CLASSES, counts, strict=True))
        for wrong, count in ((True, errors), (False, correct))
        for i in range(count)
    ]
    rng = np.random.default_rng(seed)
    mixed = [pairs[i] for i in rng.permutation(len(pairs))]
    return pd.DataFrame(
        {
            "index": np.arange(len(mixed)) * 7 + 5,  # never the row's own number
            "file": "",
            "true": [true for true, _ in mixed],
            "predicted": [predicted for _, predicted in mixed],
            "confidence": 0.5,
            "true_probability": 0.25,
            "logit_0": 1.0,
        }
    )


def per_class(rows: pd.DataFrame) -> list[int]:
    return [int((rows.true == name).sum()) for name in CLASSES]


def assert_in_order(rows: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Rows are the table's own, none twice, by class and then by index."""
    keys = list(zip(rows.true.map(CLASSES.index), rows["index"], strict=True))
    assert keys == sorted(set(keys))
    assert list(rows) == SHOWN
    own = predictions.set_index("index").loc[rows["index"]].reset_index()
    assert rows.reset_index(drop=True).equals(own[SHOWN])


COUNTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 30), st.integers(0, 5))
def test_errors_are_as_even_over_the_classes_as_can_be(
    counts: Counts, wanted: int, seed: int
) -> None:
    predictions = make_predictions(counts)
    rows = choose_errors(predictions, CLASSES, count=wanted, seed=seed)
    there = [errors for errors, _ in counts]
    chosen = per_class(rows)
    assert (rows.true != rows.predicted).all()
    assert len(rows) == min(wanted, sum(there))
    assert_in_order(rows, predictions)
    short = [mine for mine, all_of_it in zip(chosen, there, strict=True) if mine < all_of_it]
    # Nobody has two more than a class that could have given another one.
    assert not short or max(chosen) <= min(short) + 1


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 30), st.integers(0, 5))
def test_correct_images_are_matched_by_class_and_filled_up(
    counts: Counts, wanted: int, seed: int
) -> None:
    predictions = make_predictions(counts)
    errors = choose_errors(predictions, CLASSES, count=wanted, seed=seed)
    rows = choose_correct(predictions, CLASSES, errors, seed=seed)
    there = [correct for _, correct in counts]
    assert (rows.true == rows.predicted).all()
    assert len(rows) == min(len(errors), sum(there))
    assert_in_order(rows, predictions)
    matched = zip(per_class(rows), per_class(errors), there, strict=True)
    assert all(mine >= min(asked, correct) for mine, asked, correct in matched)


def test_errors_by_hand() -> None:
    """10 of (1, 9, 2, 9): the scarce classes give all they have, the others share the rest."""
    rows = choose_errors(
        make_predictions([(1, 0), (9, 0), (2, 0), (9, 0)]), CLASSES, count=11, seed=0
    )
    assert per_class(rows) == [1, 4, 2, 4]
    assert rows.true.drop_duplicates().tolist() == CLASSES


def test_correct_by_hand() -> None:
    """Cows are all wrong: as many others, taken evenly, stand in for them."""
    predictions = make_predictions([(2, 9), (2, 9), (3, 0), (2, 9)])
    errors = choose_errors(predictions, CLASSES, count=9, seed=0)
    assert per_class(errors) == [2, 2, 3, 2]
    assert per_class(choose_correct(predictions, CLASSES, errors, seed=0)) == [3, 3, 0, 3]


def test_fewer_errors_than_asked_for_are_all_shown() -> None:
    predictions = make_predictions([(1, 5), (0, 5), (2, 5), (0, 5)])
    rows = choose_errors(predictions, CLASSES, count=20, seed=0)
    wrong = predictions["index"][predictions.true != predictions.predicted]
    assert set(rows["index"]) == set(wrong)
    assert len(rows) == 3


@pytest.mark.parametrize("correct", [0, 5])
def test_no_errors_give_empty_tables_with_all_columns(correct: int) -> None:
    predictions = make_predictions([(0, correct)] * 4)
    errors = choose_errors(predictions, CLASSES, count=20, seed=0)
    beside = choose_correct(predictions, CLASSES, errors, seed=0)
    assert len(errors) == len(beside) == 0
    assert list(errors) == list(beside) == SHOWN


def test_nothing_but_errors_leaves_no_correct_ones() -> None:
    predictions = make_predictions([(5, 0)] * 4)
    errors = choose_errors(predictions, CLASSES, count=8, seed=0)
    assert len(errors) == 8
    assert len(choose_correct(predictions, CLASSES, errors, seed=0)) == 0


def test_the_seed_alone_decides() -> None:
    predictions = make_predictions([(30, 30)] * 4)

    def choose(seed: int) -> tuple[list[int], list[int]]:
        errors = choose_errors(predictions, CLASSES, count=10, seed=seed)
        correct = choose_correct(predictions, CLASSES, errors, seed=seed)
        return errors["index"].tolist(), correct["index"].tolist()

    np.random.seed(1)  # noqa: NPY002, the global state must not matter
    first = choose(3)
    np.random.seed(2)  # noqa: NPY002
    assert choose(3) == first
    other = choose(4)
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_which_class_gives_the_odd_one_is_drawn() -> None:
    predictions = make_predictions([(5, 0)] * 4)
    more = {
        int(np.argmax(per_class(choose_errors(predictions, CLASSES, count=5, seed=seed))))
        for seed in range(40)
    }
    assert more == {0, 1, 2, 3}


def test_every_error_can_be_drawn() -> None:
    predictions = make_predictions([(6, 0), (0, 0), (0, 0), (0, 0)])
    seen = {
        index
        for seed in range(60)
        for index in choose_errors(predictions, CLASSES, count=1, seed=seed)["index"]
    }
    assert seen == set(predictions["index"])
