"""Intervals compared with SciPy's."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.results.intervals import mean_interval, wilson_interval


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipy(case: tuple[int, int]) -> None:
    hits, n = case
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    low, high = wilson_interval(hits, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= hits / n <= high + 1e-12


def test_wilson_interval_without_images_is_unit() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mean_interval_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 1, 20)
    mean, low, high = mean_interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(mean_interval(np.empty(0))).all()
    assert mean_interval(np.array([2.0])) == (2.0, float("-inf"), float("inf"))
