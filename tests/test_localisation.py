"""Localisation metrics by hand."""

import numpy as np
import pytest

from cifarpipe.explanations.localisation import energy_inside, pointing_game


def test_pointing_game_by_hand() -> None:
    maps = np.array(
        [[[3, 0], [0, 0]], [[0, 0], [0, 2]], [[0, 1], [0, -9]], [[-1, -2], [-2, -2]]], np.float32
    )
    masks = np.zeros((4, 4, 4), bool)
    masks[0, :2, :2] = True  # hit at (0, 0); contains one of the four central pixels
    masks[1, :3, :3] = True  # missed at (3, 3); contains all four
    masks[2, 0, 3] = True  # hit at (0, 3), which is not (3, 0)
    masks[3] = True  # all object, but no evidence for the class: a miss
    found = pointing_game(maps, masks)
    assert found.hits.tolist() == [True, False, True, False]
    assert found.centre.tolist() == [1 / 4, 1, 0, 1]


def test_centre_of_odd_size_is_one_pixel() -> None:
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 2, 2] = True
    masks[1] = True
    masks[1, 2, 2] = False
    found = pointing_game(np.ones((2, 1, 1), np.float32), masks)
    assert found.centre.tolist() == [1, 0]


def test_random_maps_of_full_size_hit_as_often_as_the_object_is_large() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((4000, 8, 8)) < 0.3
    maps = rng.normal(size=(4000, 8, 8)).astype(np.float32)
    found = pointing_game(maps, masks)
    # Four standard deviations.
    assert found.hits.mean() == pytest.approx(masks.mean(), abs=0.03)


def test_energy_inside_by_hand() -> None:
    maps = np.array(
        [[[3.0, 1.0], [-5.0, 0.0]], [[-1.0, -1.0], [0.0, -2.0]], [[0.25, 0.25], [0.0, 0.0]]],
        np.float32,
    )
    masks = np.zeros((3, 2, 2), bool)
    masks[:, 0, 0] = True
    assert energy_inside(maps, masks).tolist() == [0.75, 0.0, 0.5]
    assert energy_inside(maps, ~masks).tolist() == [0.25, 0.0, 0.5]
