"""Stratified splits: exact sizes, equal fractions of all classes, dependence on the seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.config.errors import UserError
from cifarpipe.data.splits import choose_test, split_train, stratified_choice

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(
    lambda labels: np.array(labels, np.int64)
)
SEEDS = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=100)
BALANCED = np.random.default_rng(0).permutation(np.arange(200) % 10)


@given(labels=LABELS, seed=SEEDS, data=st.data())
@quick
def test_choice_is_exact_unique_and_stratified(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(0, len(labels)))
    chosen = stratified_choice(labels, size, np.random.default_rng(seed))
    assert chosen.shape == (size,)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()  # ascending, so no duplicates
    assert set(chosen) <= set(range(len(labels)))
    counts, taken = Counter(labels.tolist()), Counter(labels[chosen].tolist())
    for label, count in counts.items():
        # Within one image of its fraction, in integers: |taken − count × size / N| < 1.
        assert abs(taken[label] * len(labels) - count * size) < len(labels)


def test_every_image_is_equally_likely() -> None:
    labels = np.repeat(np.arange(4), [4, 8, 12, 16])
    times = np.zeros(40)
    for seed in range(400):
        times[stratified_choice(labels, 20, np.random.default_rng(seed))] += 1
    assert times.sum() == 400 * 20
    assert abs(times - 200).max() < 50  # five standard deviations


def test_rounding_remainders_go_to_random_classes() -> None:
    labels = np.repeat(np.arange(10), 10)
    extra = Counter(
        Counter(
            labels[stratified_choice(labels, 11, np.random.default_rng(seed))].tolist()
        ).most_common(1)[0][0]
        for seed in range(100)
    )
    assert len(extra) > 5  # of 10; without randomness it would be one


@given(labels=LABELS, seed=SEEDS, data=st.data())
@quick
def test_train_and_validation_partition_all_images(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    val_size = data.draw(st.integers(0, len(labels) - 1))
    train, val = split_train(labels, val_size=val_size, train_size=None, seed=seed)
    assert len(val) == val_size
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()


@given(labels=LABELS, seed=SEEDS, data=st.data())
@quick
def test_validation_split_is_independent_of_train_size(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    val_size = data.draw(st.integers(0, len(labels) - 1))
    train_size = data.draw(st.integers(1, len(labels) - val_size))
    whole, val = split_train(labels, val_size=val_size, train_size=None, seed=seed)
    part, same = split_train(labels, val_size=val_size, train_size=train_size, seed=seed)
    assert np.array_equal(val, same)
    assert len(part) == train_size
    assert (np.diff(part) > 0).all()
    assert set(part) <= set(whole)


def test_smaller_train_split_is_stratified() -> None:
    train, val = split_train(BALANCED, val_size=50, train_size=100, seed=3)
    assert np.bincount(BALANCED[train]).tolist() == [10] * 10
    assert np.bincount(BALANCED[val]).tolist() == [5] * 10


def test_splits_depend_on_seed_alone() -> None:
    def split(seed: int) -> list[list[int]]:
        train, val = split_train(BALANCED, val_size=50, train_size=100, seed=seed)
        test = choose_test(BALANCED, test_size=50, seed=seed)
        return [part.tolist() for part in (train, val, test)]

    np.random.seed(1)  # noqa: NPY002, any global state
    first = split(7)
    np.random.seed(2)  # noqa: NPY002
    assert split(7) == first
    for part, other in zip(first, split(8), strict=True):
        assert part != other


def test_splits_of_a_seed_never_change() -> None:
    """Otherwise results of different versions could not be compared."""
    labels = np.arange(30) % 3
    train, val = split_train(labels, val_size=6, train_size=6, seed=0)
    assert train.tolist() == [0, 1, 14, 16, 17, 21]
    assert val.tolist() == [8, 12, 19, 20, 27, 28]
    assert choose_test(labels, test_size=6, seed=0).tolist() == [0, 2, 3, 4, 5, 7]


def test_train_and_test_use_different_random_streams() -> None:
    _, val = split_train(BALANCED, val_size=50, train_size=None, seed=7)
    assert val.tolist() != choose_test(BALANCED, test_size=50, seed=7).tolist()


@given(labels=LABELS, seed=SEEDS, data=st.data())
@quick
def test_test_split_keeps_original_order(
    labels: np.ndarray, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(labels)))
    chosen = choose_test(labels, test_size=size, seed=seed)
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    everything = choose_test(labels, test_size=None, seed=seed)
    assert everything.tolist() == list(range(len(labels)))
    assert choose_test(labels, test_size=len(labels), seed=seed).tolist() == everything.tolist()


@pytest.mark.parametrize("val_size", [200, 201, 5000])
def test_validation_split_of_all_images_is_refused(val_size: int) -> None:
    with pytest.raises(UserError) as refused:
        split_train(BALANCED, val_size=val_size, train_size=None, seed=0)
    message = str(refused.value)
    assert f"data.val_size is {val_size}, but train has 200 images" in message
    assert "Allowed: 0 to 199" in message


def test_too_large_train_size_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        split_train(BALANCED, val_size=50, train_size=151, seed=0)
    message = str(refused.value)
    assert "data.train_size is 151, but train has 200 images, of which 50 are held out" in message
    assert "Allowed: 1 to 150, or null for all" in message
    train, _ = split_train(BALANCED, val_size=50, train_size=150, seed=0)
    assert len(train) == 150


def test_too_large_test_size_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        choose_test(BALANCED, test_size=201, seed=0)
    message = str(refused.value)
    assert "data.test_size is 201, but test has 200 images" in message
    assert "Allowed: 1 to 200, or null for all" in message
