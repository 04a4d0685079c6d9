"""Crop, resized crop, flip and rotation against torchvision's, image by image, and their draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as reference

from cifarpipe.augment.geometry import AlternatingFlip, Crop, RandomFlip, ResizedCrop, Rotate
from cifarpipe.augment.transform import EpochOrder

MANY = EpochOrder(1, np.arange(20_000))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_crop_is_torchvisions(pictures: Tensor) -> None:
    crop = Crop(padding=4)
    drawn = torch.from_numpy(crop.draw(rng(), EpochOrder(1, np.arange(len(pictures)))))
    cropped = crop.apply(pictures, drawn)
    padded = reference.pad(pictures, [4, 4, 4, 4])
    for ours, whole, (top, left) in zip(cropped, padded, drawn.tolist(), strict=True):
        assert torch.equal(ours, reference.crop(whole, top, left, 32, 32))


@pytest.mark.parametrize("place", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_crops_reach_the_corners_and_no_further(pictures: Tensor, place: tuple[int, int]) -> None:
    padded = reference.pad(pictures, [4, 4, 4, 4])
    cropped = Crop(padding=4).apply(pictures, torch.tensor([place] * len(pictures)))
    assert torch.equal(cropped, reference.crop(padded, *place, 32, 32))


def test_crop_places_are_uniform_and_each_images_own() -> None:
    drawn = Crop(padding=4).draw(rng(), MANY)
    table = np.zeros((9, 9))
    np.add.at(table, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-3


@pytest.mark.parametrize("box", [(0, 0, 32, 32), (3, 7, 20, 25), (12, 0, 5, 32), (31, 31, 1, 1)])
def test_resized_crop_is_torchvisions(pictures: Tensor, box: tuple[int, ...]) -> None:
    crop = ResizedCrop(scale=(0.1, 1.0), ratio=(0.5, 2.0), size=32)
    boxes = torch.tensor([box] * len(pictures), dtype=torch.float32)
    top, left, height, width = box
    theirs = reference.resized_crop(pictures, top, left, height, width, [32, 32])
    difference = (crop.apply(pictures, boxes).int() - theirs.int()).abs()
    assert difference.max() <= 1  # the last bit of rounding to bytes


def test_resized_crops_own_boxes_do_not_mix(pictures: Tensor) -> None:
    crop = ResizedCrop(scale=(0.1, 1.0), ratio=(0.5, 2.0), size=32)
    boxes = torch.from_numpy(crop.draw(rng(), EpochOrder(1, np.arange(len(pictures)))))
    together = crop.apply(pictures, boxes)
    for ours, picture, box in zip(together, pictures, boxes, strict=True):
        assert torch.equal(ours, crop.apply(picture[None], box[None])[0])


def test_resized_crop_draws_as_torchvision_does() -> None:
    crop = ResizedCrop(scale=(0.25, 1.0), ratio=(3 / 4, 4 / 3), size=32)
    drawn = crop.draw(rng(), MANY)
    assert (drawn[:, :2] >= 0).all()
    assert (drawn[:, :2] + drawn[:, 2:] <= 32).all()
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(32, scale=(0.25, 1.0), ratio=(3 / 4, 4 / 3))
    picture = [torch.zeros(3, 32, 32)]
    boxes = [theirs.make_params(picture) for _ in range(4000)]
    for column, name in enumerate(["top", "left", "height", "width"]):
        other = [box[name] for box in boxes]
        assert stats.ks_2samp(drawn[:, column], other).pvalue > 1e-3, name


def test_a_resized_crop_that_never_fits_takes_the_middle_as_torchvision_does() -> None:
    """Twice as wide as high, and all of the area: no such rectangle lies inside a square."""
    crop = ResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 2.0), size=32)
    drawn = crop.draw(rng(), EpochOrder(1, np.arange(5)))
    theirs = v2.RandomResizedCrop(32, scale=(1.0, 1.0), ratio=(2.0, 2.0))
    box = theirs.make_params([torch.zeros(3, 32, 32)])
    assert drawn.tolist() == [[box["top"], box["left"], box["height"], box["width"]]] * 5


def test_flip_mirrors_those_drawn(pictures: Tensor) -> None:
    drawn = torch.arange(len(pictures)) % 3 == 0
    flipped = RandomFlip().apply(pictures, drawn)
    for ours, picture, mirrored in zip(flipped, pictures, drawn, strict=True):
        assert torch.equal(ours, reference.horizontal_flip(picture) if mirrored else picture)


def test_random_flip_draws_half_of_the_images() -> None:
    drawn = RandomFlip().draw(rng(), MANY)
    assert stats.binomtest(int(drawn.sum()), len(MANY)).pvalue > 1e-3


def test_alternating_flip_shows_both_sides_in_any_two_epochs() -> None:
    flip = AlternatingFlip(seed=3)
    sides = {}
    for number in (1, 2, 3):
        order = rng(number).permutation(1000)
        drawn = flip.draw(rng(), EpochOrder(number, order))
        sides[number] = np.empty(1000, dtype=bool)
        sides[number][order] = drawn  # by image, not by place in the epoch
    assert (sides[1] != sides[2]).all()
    assert (sides[1] == sides[3]).all()
    assert stats.binomtest(int(sides[1].sum()), 1000).pvalue > 1e-3
    other = AlternatingFlip(seed=4).draw(rng(), EpochOrder(1, np.arange(1000)))
    assert (other != sides[1]).any()


@pytest.mark.parametrize("degrees", [-90.0, -30.0, -5.0, 0.0, 4.0, 45.0, 180.0])
def test_rotation_is_torchvisions(pictures: Tensor, degrees: float) -> None:
    batch = pictures.float() / 255
    angles = torch.deg2rad(torch.full((len(batch),), degrees))
    ours = Rotate(180.0).apply(batch, angles)
    theirs = reference.rotate(batch, degrees, interpolation=InterpolationMode.BILINEAR)
    # torchvision fades the border with its mask of the picture; inside it both must agree.
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_every_image_is_turned_by_its_own_angle(pictures: Tensor) -> None:
    rotate = Rotate(20.0)
    drawn = torch.from_numpy(rotate.draw(rng(), EpochOrder(1, np.arange(len(pictures)))))
    batch = pictures.float()
    together = rotate.apply(batch, drawn)
    for ours, picture, angle in zip(together, batch, drawn, strict=True):
        assert torch.equal(ours, rotate.apply(picture[None], angle[None])[0])


def test_angles_are_uniform() -> None:
    drawn = np.rad2deg(Rotate(15.0).draw(rng(), MANY))
    assert stats.kstest(drawn, stats.uniform(-15, 30).cdf).pvalue > 1e-3
