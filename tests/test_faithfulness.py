"""Faithfulness metrics computed by hand, and for a network that reads one quarter of the image."""

import numpy as np
import pytest
import scipy.ndimage
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
from cifarpipe.results.maps import Maps


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
    assert (found.hits, found.images) == (2, 4)
    assert found.centre == (1 / 4 + 1 + 0 + 1) / 4
    assert found.random == (4 + 9 + 1 + 16) / 64


def test_centre_of_odd_size_is_one_pixel() -> None:
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 2, 2] = True
    masks[1] = True
    masks[1, 2, 2] = False
    for mask, centre, share in zip(masks, (1.0, 0.0), (1 / 25, 24 / 25), strict=True):
        found = pointing_game(np.ones((1, 1, 1), np.float32), mask[None])
        assert (found.centre, found.random) == (centre, share)


def test_random_maps_score_the_random_baseline() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((4000, 8, 8)) < 0.3
    maps = rng.normal(size=(4000, 8, 8)).astype(np.float32)
    found = pointing_game(maps, masks)
    assert found.hits / found.images == pytest.approx(
        found.random, abs=0.03
    )  # four standard deviations


def test_pointing_game_without_images_is_zero() -> None:
    found = pointing_game(np.empty((0, 1, 1), np.float32), np.empty((0, 8, 8), bool))
    assert found == Pointing(hits=0, images=0, centre=0.0, random=0.0)


def test_energy_inside_by_hand() -> None:
    maps = np.array(
        [[[3.0, 1.0], [-5.0, 0.0]], [[-1.0, -1.0], [0.0, -2.0]], [[0.25, 0.25], [0.0, 0.0]]],
        np.float32,
    )
    masks = np.zeros((3, 2, 2), bool)
    masks[:, 0, 0] = True
    assert energy_inside(maps, masks).tolist() == [0.75, 0.0, 0.5]
    assert energy_inside(maps, ~masks).tolist() == [0.25, 0.0, 0.5]


SIZE = 16


def corner_logits(batch: Tensor) -> Tensor:
    """Return logits of a network that reads only the top left quarter."""
    seen = batch[:, :, : SIZE // 2, : SIZE // 2].mean(dim=(1, 2, 3))
    return torch.stack([4 * seen, -4 * seen], dim=1)


@pytest.fixture
def bright() -> Tensor:
    """Return images that are bright in that quarter and 0 elsewhere, with some noise."""
    noise = torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) / 10
    noise[:, :, : SIZE // 2, : SIZE // 2] += 1
    return noise


def corner(value: float = 1.0) -> Maps:
    maps = np.zeros((12, 4, 4), np.float32)
    maps[:, :2, :2] = value
    return maps


def test_road_ranks_correct_maps_above_wrong_maps(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    found = {
        name: road(corner_logits, bright, maps, classes, seed=0).mean()
        for name, maps in {
            "correct": corner(),
            "inverted": corner(-1.0),
            "random": random_maps(corner(), np.random.default_rng(0)),
            "centre": centre_maps(corner()),
        }.items()
    }
    assert found["correct"] > 0.1
    assert found["inverted"] < -0.1
    assert found["inverted"] < found["random"] < found["correct"]
    assert found["centre"] < found["correct"]


def test_road_removes_exact_pixel_counts() -> None:
    """Of 16 pixels, 20%, 50% and 80% are 3, 8 and 13: of the least, then the most important ones.

    Removed pixels are those that differ from the image, since imputation adds noise.
    """
    importance = np.array(
        [[3, 14, 7, 0], [9, 1, 12, 5], [15, 6, 2, 10], [8, 11, 4, 13]], dtype=np.float32
    )
    image = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    removed: list[list[int]] = []

    def record(batch: Tensor) -> Tensor:
        changed = (batch != image).all(dim=1)[0].numpy()
        assert np.array_equal(changed, (batch != image).any(dim=1)[0].numpy())
        removed.append(sorted(importance[changed].astype(int).tolist()))
        return torch.zeros(1, 2)

    road(record, image, importance[None], torch.zeros(1).long(), seed=0)
    assert removed == [
        [0, 1, 2],
        [13, 14, 15],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 12, 13, 14, 15],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    ]


def test_road_averages_differences_of_probabilities() -> None:
    """Least minus most important: 0.8 − 0.1, 0.7 − 0.3 and 0.5 − 0.4, of class 1."""
    probabilities = iter([0.8, 0.1, 0.7, 0.3, 0.5, 0.4])

    def predict(_batch: Tensor) -> Tensor:
        value = next(probabilities)
        return torch.tensor([[1 - value, value]]).log()

    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    found = road(predict, torch.ones(1, 3, 4, 4), maps, torch.ones(1).long(), seed=0)
    assert found == pytest.approx([(0.7 + 0.4 + 0.1) / 3])


def test_road_depends_only_on_its_seed(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    torch.manual_seed(5)
    first = road(corner_logits, bright, corner(), classes, seed=1)
    after = torch.rand(())
    assert np.array_equal(first, road(corner_logits, bright, corner(), classes, seed=1))
    assert not np.array_equal(first, road(corner_logits, bright, corner(), classes, seed=2))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def test_deletion_and_insertion_by_hand(bright: Tensor) -> None:
    """The quarter is deleted in the first two of eight steps, half of it in each."""
    classes = torch.zeros(12, dtype=torch.int64)
    plain = torch.zeros_like(bright)
    plain[:, :, : SIZE // 2, : SIZE // 2] = 1.0
    blocks = np.zeros((12, SIZE, SIZE), np.float32)
    blocks[:, : SIZE // 2, : SIZE // 2] = 1.0
    deletion, insertion = deletion_insertion(corner_logits, plain, blocks, classes)
    whole, half, none = (1 / (1 + np.exp(-8 * seen)) for seen in (1.0, 0.5, 0.0))
    assert deletion == pytest.approx(np.full(12, (whole / 2 + half + none * 6.5) / 8), abs=1e-6)
    assert (insertion > 0.85 * whole).all()
    worse_deletion, worse_insertion = deletion_insertion(corner_logits, plain, -blocks, classes)
    assert (worse_deletion > deletion).all()
    assert (worse_insertion < insertion).all()


def test_rank_correlation_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 4, 4))
    others[0] = maps[0] ** 3
    maps[2] = 7.0
    found = rank_correlation(maps.astype(np.float32), others.astype(np.float32))
    expected = scipy.stats.spearmanr(maps[1].ravel(), others[1].ravel()).statistic
    assert found == pytest.approx([1.0, expected, 0.0])


def test_mean_interval_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 1, 20)
    mean, low, high = mean_interval(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(mean_interval(np.empty(0))).all()
    assert mean_interval(np.array([2.0])) == (2.0, float("-inf"), float("inf"))


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


def test_insertion_starts_from_gaussian_blur() -> None:
    """Its standard deviation is a sixth of the image, as in SciPy's filter up to three of them."""
    batch = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def record(inserted: Tensor) -> Tensor:
        seen.append(inserted)
        return torch.zeros(len(inserted), 2)

    maps = random_maps(np.zeros((2, 4, 4), np.float32), np.random.default_rng(0))
    deletion_insertion(record, batch, maps, torch.zeros(2, dtype=torch.int64))
    expected = scipy.ndimage.gaussian_filter(
        batch.numpy(), SIZE / 6, mode="nearest", truncate=3, axes=(2, 3)
    )
    np.testing.assert_allclose(seen[1], expected, atol=1e-5)  # the first with nothing inserted
    assert torch.equal(seen[-1], batch)
