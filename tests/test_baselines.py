"""Uninformative maps."""

import numpy as np
import scipy.stats

from cifarpipe.explanations.baselines import centre_maps, random_maps, shuffled_maps


def test_centre_maps_are_highest_in_the_centre() -> None:
    maps = centre_maps(np.zeros((2, 8, 6), np.float32))
    assert maps.shape == (2, 8, 6)
    assert maps[0, 3:5, 2:4].min() == maps.max()
    assert maps[0, 0, 0] == maps.min() > 0


def test_centre_maps_are_gaussian() -> None:
    """Its standard deviation is 2 of 8 pixels, and 1.5 of 6."""
    (found,) = centre_maps(np.zeros((1, 8, 6), np.float32))
    rows = scipy.stats.norm.pdf(np.arange(8), 3.5, 2)
    columns = scipy.stats.norm.pdf(np.arange(6), 2.5, 1.5)
    expected = np.outer(rows, columns)
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-5)


def test_uninformative_maps_are_like_other_maps() -> None:
    maps = np.zeros((2, 8, 6), np.float32)
    rng = np.random.default_rng(0)
    for found in (random_maps(maps, rng), shuffled_maps(maps, rng), centre_maps(maps)):
        assert (found.shape, found.dtype) == (maps.shape, maps.dtype)


def test_shuffled_maps_have_each_maps_own_values() -> None:
    maps = np.arange(96, dtype=np.float32).reshape(2, 8, 6)
    found = shuffled_maps(maps, np.random.default_rng(0))
    for before, after in zip(maps, found, strict=True):
        assert np.array_equal(np.sort(after, axis=None), before.ravel())
        assert (before == after).mean() < 0.1
    assert not np.array_equal(found[1], found[0] + 48)
