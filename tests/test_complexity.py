"""Sparseness by hand, and compared with the definition of the Gini index."""

import numpy as np
import pytest

from cifarpipe.explanations.complexity import sparseness


def test_sparseness_equals_the_mean_difference() -> None:
    """The Gini index is the mean absolute difference of two values, divided by twice their mean."""
    maps = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    values = abs(maps.reshape(3, -1))
    difference = abs(values[:, :, None] - values[:, None, :]).mean(axis=(1, 2))
    assert sparseness(maps) == pytest.approx(difference / (2 * values.mean(axis=1)))


def test_sparseness_of_spread_and_concentrated_maps() -> None:
    spread, signed, concentrated, nothing = np.zeros((4, 8, 8), np.float32)
    spread[:] = 3
    signed[:] = -3
    signed[::2] = 3
    concentrated[2, 5] = -7
    found = sparseness(np.stack([spread, signed, concentrated, nothing]))
    assert found == pytest.approx([0, 0, 63 / 64, 0])


def test_sparseness_does_not_depend_on_the_scale() -> None:
    maps = np.random.default_rng(0).random((3, 4, 4), np.float32)
    assert sparseness(maps * 1e-4) == pytest.approx(sparseness(maps))
