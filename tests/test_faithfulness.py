"""Scores of maps: by hand, and on a network that is known to look at one corner."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from cifarpipe.explanations.faithfulness import (
    Pointing,
    centre_maps,
    deletion_insertion,
    energy_inside,
    mean_interval,
    pointing_game,
    random_maps,
    rank_correlation,
    road,
)
from cifarpipe.explanations.gradcam import Maps


def test_pointing_game_by_hand() -> None:
    maps = np.array(
        [[[3, 0], [0, 0]], [[0, 0], [0, 2]], [[0, 1], [0, -9]], [[-1, -2], [-2, -2]]], np.float32
    )
    masks = np.zeros((4, 4, 4), bool)
    masks[0, :2, :2] = True  # hit at (0, 0); holds one of the four middle pixels
    masks[1, :3, :3] = True  # missed at (3, 3); holds all four
    masks[2, 0, 3] = True  # hit at (0, 3), which is not (3, 0)
    masks[3] = True  # everything is object, but nothing speaks for the class: a miss
    found = pointing_game(maps, masks)
    assert (found.hits, found.images) == (2, 4)
    assert found.centre == (1 / 4 + 1 + 0 + 1) / 4
    assert found.random == (4 + 9 + 1 + 16) / 64


def test_the_middle_of_an_odd_size_is_one_pixel() -> None:
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 2, 2] = True
    masks[1] = True
    masks[1, 2, 2] = False
    found = pointing_game(np.ones((2, 1, 1), np.float32), masks)
    assert found.centre == 0.5
    assert found.random == 0.5


def test_pointing_anywhere_scores_what_random_maps_score() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((4000, 8, 8)) < 0.3
    maps = rng.normal(size=(4000, 8, 8)).astype(np.float32)
    found = pointing_game(maps, masks)
    assert found.hits / found.images == pytest.approx(found.random, abs=0.03)  # four deviations


def test_pointing_game_of_nothing() -> None:
    found = pointing_game(np.empty((0, 1, 1), np.float32), np.empty((0, 8, 8), bool))
    assert found == Pointing(hits=0, images=0, centre=0.0, random=0.0)


def test_energy_inside_by_hand() -> None:
    maps = np.array([[[3.0, 1.0], [-5.0, 0.0]], [[-1.0, -1.0], [0.0, -2.0]]], np.float32)
    masks = np.zeros((2, 2, 2), bool)
    masks[:, 0, 0] = True
    assert energy_inside(maps, masks).tolist() == [0.75, 0.0]
    assert energy_inside(maps, ~masks).tolist() == [0.25, 0.0]


SIZE = 16


def looks_at_corner(batch: Tensor) -> Tensor:
    """Return logits of a network for which the top left quarter alone matters."""
    seen = batch[:, :, : SIZE // 2, : SIZE // 2].mean(dim=(1, 2, 3))
    return torch.stack([4 * seen, -4 * seen], dim=1)


@pytest.fixture
def bright() -> Tensor:
    """Return pictures that are bright in that quarter and at nought elsewhere, with some noise."""
    noise = torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) / 10
    noise[:, :, : SIZE // 2, : SIZE // 2] += 1
    return noise


def corner(value: float = 1.0) -> Maps:
    maps = np.zeros((12, 4, 4), np.float32)
    maps[:, :2, :2] = value
    return maps


def test_who_knows_the_corner_wins_and_who_denies_it_loses(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    found = {
        name: road(looks_at_corner, bright, maps, classes, seed=0).mean()
        for name, maps in {
            "knows": corner(),
            "denies": corner(-1.0),
            "random": random_maps(corner(), np.random.default_rng(0)),
            "centre": centre_maps(corner()),
        }.items()
    }
    assert found["knows"] > 0.1
    assert found["denies"] < -0.1
    assert found["denies"] < found["random"] < found["knows"]
    assert found["centre"] < found["knows"]


def test_road_is_a_function_of_its_seed_and_leaves_chance_alone(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    torch.manual_seed(5)
    first = road(looks_at_corner, bright, corner(), classes, seed=1)
    after = torch.rand(())
    assert np.array_equal(first, road(looks_at_corner, bright, corner(), classes, seed=1))
    assert not np.array_equal(first, road(looks_at_corner, bright, corner(), classes, seed=2))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def test_deletion_and_insertion_by_hand(bright: Tensor) -> None:
    """The quarter goes within the first two of eight steps, half of it in each."""
    classes = torch.zeros(12, dtype=torch.int64)
    plain = torch.zeros_like(bright)
    plain[:, :, : SIZE // 2, : SIZE // 2] = 1.0
    blocks = np.zeros((12, SIZE, SIZE), np.float32)
    blocks[:, : SIZE // 2, : SIZE // 2] = 1.0
    deletion, insertion = deletion_insertion(looks_at_corner, plain, blocks, classes)
    whole, half, none = (1 / (1 + np.exp(-8 * seen)) for seen in (1.0, 0.5, 0.0))
    assert deletion == pytest.approx(np.full(12, (whole / 2 + half + none * 6.5) / 8), abs=1e-6)
    assert (insertion > 0.85 * whole).all()
    worse_deletion, worse_insertion = deletion_insertion(looks_at_corner, plain, -blocks, classes)
    assert (worse_deletion > deletion).all()
    assert (worse_insertion < insertion).all()


def test_rank_correlation_is_scipys_and_nought_for_a_flat_map() -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 4, 4))
    others[0] = maps[0] ** 3
    maps[2] = 7.0
    found = rank_correlation(maps.astype(np.float32), others.astype(np.float32))
    expected = scipy.stats.spearmanr(maps[1].ravel(), others[1].ravel()).statistic
    assert found == pytest.approx([1.0, expected, 0.0])


def test_the_mean_stands_with_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 1, 20)
    mean, low, high = mean_interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(mean_interval(np.empty(0))).all()
    assert mean_interval(np.array([2.0])) == (2.0, float("-inf"), float("inf"))


def test_the_middle_is_highest_in_the_middle() -> None:
    maps = centre_maps(np.zeros((2, 8, 6), np.float32))
    assert maps.shape == (2, 8, 6)
    assert maps[0, 3:5, 2:4].min() == maps.max()
    assert maps[0, 0, 0] == maps.min() > 0
