"""Cutout and random erasing: their shape, and their draws compared with torchvision's."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cifarpipe.augment.erasing import Cutout, RandomErasing
from cifarpipe.augment.transform import EpochOrder

MANY = EpochOrder(1, np.arange(20_000))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_cutout_erases_one_square_clipped_at_borders() -> None:
    cutout = Cutout(side=16, size=32)
    drawn = torch.from_numpy(cutout.draw(rng(), EpochOrder(1, np.arange(5000))))
    erased = cutout.apply(torch.ones(5000, 3, 32, 32), drawn) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    heights, widths = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased[:, 0].sum((1, 2)), heights * widths)  # a full rectangle
    assert heights.max() == widths.max() == 16
    assert heights.min() == widths.min() == 8  # its centre is never outside
    centres = drawn[:, 0] + 8
    assert stats.chisquare(torch.bincount(centres, minlength=32)).pvalue > 1e-3


def test_random_erasing_equals_torchvision(image_batch: Tensor) -> None:
    erasing = RandomErasing(probability=0.7, scale=(0.02, 0.33), ratio=(0.3, 3.3), size=32)
    batch = image_batch.float()
    drawn = torch.from_numpy(erasing.draw(rng(), EpochOrder(1, np.arange(len(batch)))))
    erased = erasing.apply(batch.clone(), drawn)
    for found, image, (top, left, height, width) in zip(erased, batch, drawn.tolist(), strict=True):
        value = torch.zeros(1, 1, 1)
        assert torch.equal(found, reference.erase(image, top, left, height, width, value))


def test_random_erasing_draws_follow_torchvision() -> None:
    erasing = RandomErasing(probability=0.5, scale=(0.02, 0.8), ratio=(0.2, 1.0), size=32)
    drawn = erasing.draw(rng(), MANY)
    hit = drawn[:, 2] > 0
    theirs = v2.RandomErasing(p=1.0, scale=(0.02, 0.8), ratio=(0.2, 1.0))
    torch.manual_seed(0)
    boxes = [theirs.make_params([torch.zeros(3, 32, 32)]) for _ in range(4000)]
    boxes = [box for box in boxes if box["v"] is not None]
    # Ten tries nearly always find a rectangle that fits.
    assert stats.binomtest(int(hit.sum()), len(MANY), 0.5 * len(boxes) / 4000).pvalue > 1e-3
    for column, name in enumerate("ijhw"):
        assert stats.ks_2samp(drawn[hit, column], [box[name] for box in boxes]).pvalue > 1e-3


@pytest.mark.parametrize(("area", "ratio"), [(1.0, 1.0), (0.5, 2.0), (0.5, 0.5)])
def test_rectangle_that_never_fits_erases_nothing(area: float, ratio: float) -> None:
    """A rectangle as high or as wide as the image does not fit, as in torchvision."""
    theirs = v2.RandomErasing(p=1.0, scale=(area, area), ratio=(ratio, ratio))
    assert theirs.make_params([torch.zeros(3, 32, 32)])["v"] is None
    erasing = RandomErasing(probability=1.0, scale=(area, area), ratio=(ratio, ratio), size=32)
    assert not erasing.draw(rng(), EpochOrder(1, np.arange(50))).any()


def test_images_without_fitting_rectangle_are_unchanged() -> None:
    """Of these rectangles, few fit: in some images one of ten tries, in others none."""
    erasing = RandomErasing(probability=1.0, scale=(0.85, 1.0), ratio=(0.5, 2.0), size=32)
    drawn = erasing.draw(rng(), MANY)
    theirs = v2.RandomErasing(p=1.0, scale=(0.85, 1.0), ratio=(0.5, 2.0))
    torch.manual_seed(0)
    image = [torch.zeros(3, 32, 32)]
    expected = sum(theirs.make_params(image)["v"] is not None for _ in range(4000))
    found = int(drawn.any(axis=1).sum())
    assert 400 < expected < 3600
    table = [[found, len(MANY) - found], [expected, 4000 - expected]]
    assert stats.chi2_contingency(table).pvalue > 1e-2
    assert drawn[:, 2:].max() < 32
