"""Crop, resized crop, flip and rotation compared with torchvision's, and their draws."""

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


def test_crop_equals_torchvision(image_batch: Tensor) -> None:
    crop = Crop(padding=4)
    drawn = torch.from_numpy(crop.draw(rng(), EpochOrder(1, np.arange(len(image_batch)))))
    cropped = crop.apply(image_batch, drawn)
    padded = reference.pad(image_batch, [4, 4, 4, 4])
    for found, whole, (top, left) in zip(cropped, padded, drawn.tolist(), strict=True):
        assert torch.equal(found, reference.crop(whole, top, left, 32, 32))


@pytest.mark.parametrize("place", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_crop_reaches_the_corners(image_batch: Tensor, place: tuple[int, int]) -> None:
    padded = reference.pad(image_batch, [4, 4, 4, 4])
    cropped = Crop(padding=4).apply(image_batch, torch.tensor([place] * len(image_batch)))
    assert torch.equal(cropped, reference.crop(padded, *place, 32, 32))


def test_crop_positions_are_uniform() -> None:
    drawn = Crop(padding=4).draw(rng(), MANY)
    table = np.zeros((9, 9))
    np.add.at(table, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-3


@pytest.mark.parametrize("box", [(0, 0, 32, 32), (3, 7, 20, 25), (12, 0, 5, 32), (31, 31, 1, 1)])
def test_resized_crop_equals_torchvision(image_batch: Tensor, box: tuple[int, ...]) -> None:
    crop = ResizedCrop(scale=(0.1, 1.0), ratio=(0.5, 2.0), size=32)
    boxes = torch.tensor([box] * len(image_batch), dtype=torch.float32)
    top, left, height, width = box
    theirs = reference.resized_crop(image_batch, top, left, height, width, [32, 32])
    difference = (crop.apply(image_batch, boxes).int() - theirs.int()).abs()
    assert difference.max() <= 1  # the last bit of rounding to bytes


def test_resized_crop_of_batch_equals_single_images(image_batch: Tensor) -> None:
    crop = ResizedCrop(scale=(0.1, 1.0), ratio=(0.5, 2.0), size=32)
    boxes = torch.from_numpy(crop.draw(rng(), EpochOrder(1, np.arange(len(image_batch)))))
    cropped = crop.apply(image_batch, boxes)
    for found, image, box in zip(cropped, image_batch, boxes, strict=True):
        assert torch.equal(found, crop.apply(image[None], box[None])[0])


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [((0.25, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (1 / 3, 3.0))],  # of the second, few fit
)
def test_resized_crop_draws_follow_torchvision(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    crop = ResizedCrop(scale, ratio, size=32)
    drawn = crop.draw(rng(), MANY)
    assert (drawn[:, :2] >= 0).all()
    assert (drawn[:, :2] + drawn[:, 2:] <= 32).all()
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(32, scale=scale, ratio=ratio)
    image = [torch.zeros(3, 32, 32)]
    boxes = [theirs.make_params(image) for _ in range(4000)]
    for column, name in enumerate(["top", "left", "height", "width"]):
        other = [box[name] for box in boxes]
        assert stats.ks_2samp(drawn[:, column], other).pvalue > 1e-3, name
    # The whole image is the fallback of images in which none of ten rectangles fits.
    found = int((drawn[:, 2:] == 32).all(axis=1).sum())
    expected = sum(box["height"] == box["width"] == 32 for box in boxes)
    table = [[found, len(MANY) - found], [expected, 4000 - expected]]
    assert stats.chi2_contingency(table).pvalue > 1e-2


def test_resized_crop_positions_are_uniform() -> None:
    crop = ResizedCrop(scale=(0.25, 0.25), ratio=(1.0, 1.0), size=8)
    drawn = crop.draw(rng(), MANY).astype(int)
    assert (drawn[:, 2:] == 4).all()
    table = np.zeros((5, 5))
    np.add.at(table, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chisquare(table.flatten()).pvalue > 1e-3


def test_resized_crop_may_be_one_pixel() -> None:
    crop = ResizedCrop(scale=(1 / 64, 1 / 64), ratio=(1.0, 1.0), size=8)
    assert (crop.draw(rng(), EpochOrder(1, np.arange(50)))[:, 2:] == 1).all()


@pytest.mark.parametrize("ratio", [2.0, 0.5, 40.0, 1 / 40])
def test_resized_crop_falls_back_to_the_centre(ratio: float) -> None:
    """No rectangle with all of the area lies inside a square, except the square itself."""
    crop = ResizedCrop(scale=(1.0, 1.0), ratio=(ratio, ratio), size=32)
    drawn = crop.draw(rng(), EpochOrder(1, np.arange(5)))
    theirs = v2.RandomResizedCrop(32, scale=(1.0, 1.0), ratio=(ratio, ratio))
    box = theirs.make_params([torch.zeros(3, 32, 32)])
    assert drawn.tolist() == [[box["top"], box["left"], box["height"], box["width"]]] * 5


def test_flip_equals_torchvision(image_batch: Tensor) -> None:
    drawn = torch.arange(len(image_batch)) % 3 == 0
    flipped = RandomFlip().apply(image_batch, drawn)
    for found, image, mirrored in zip(flipped, image_batch, drawn, strict=True):
        assert torch.equal(found, reference.horizontal_flip(image) if mirrored else image)


def test_random_flip_mirrors_half_of_the_images() -> None:
    drawn = RandomFlip().draw(rng(), MANY)
    assert stats.binomtest(int(drawn.sum()), len(MANY)).pvalue > 1e-3


def test_alternating_flip_mirrors_every_second_epoch() -> None:
    flip = AlternatingFlip(seed=3)
    sides = {}
    for number in (1, 2, 3):
        order = rng(number).permutation(1000)
        drawn = flip.draw(rng(), EpochOrder(number, order))
        sides[number] = np.empty(1000, dtype=bool)
        sides[number][order] = drawn  # by image, not by position in the epoch
    assert (sides[1] != sides[2]).all()
    assert (sides[1] == sides[3]).all()
    assert stats.binomtest(int(sides[1].sum()), 1000).pvalue > 1e-3
    other = AlternatingFlip(seed=4).draw(rng(), EpochOrder(1, np.arange(1000)))
    assert (other != sides[1]).any()


@pytest.mark.parametrize("degrees", [-90.0, -30.0, -5.0, 0.0, 4.0, 45.0, 180.0])
def test_rotation_equals_torchvision(image_batch: Tensor, degrees: float) -> None:
    batch = image_batch.float() / 255
    angles = torch.deg2rad(torch.full((len(batch),), degrees))
    found = Rotate(180.0).apply(batch, angles)
    expected = reference.rotate(batch, degrees, interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_every_image_has_its_own_angle(image_batch: Tensor) -> None:
    rotate = Rotate(20.0)
    drawn = torch.from_numpy(rotate.draw(rng(), EpochOrder(1, np.arange(len(image_batch)))))
    batch = image_batch.float()
    rotated = rotate.apply(batch, drawn)
    for found, image, angle in zip(rotated, batch, drawn, strict=True):
        assert torch.equal(found, rotate.apply(image[None], angle[None])[0])


def test_angles_are_uniform() -> None:
    drawn = np.rad2deg(Rotate(15.0).draw(rng(), MANY))
    assert stats.kstest(drawn, stats.uniform(-15, 30).cdf).pvalue > 1e-3
