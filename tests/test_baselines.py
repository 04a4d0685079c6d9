"""Uninformative maps."""

import numpy as np
import scipy.stats

from cifarpipe.explanations.baselines import centre_maps, random_maps


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
    for found in (random_maps(maps, np.random.default_rng(0)), centre_maps(maps)):
        assert (found.shape, found.dtype) == (maps.shape, maps.dtype)
