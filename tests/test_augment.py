"""Batched augmentations against torchvision's per-image operations, and their distributions."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from cifarpipe.augment import augment, crop_and_flip, cutout, normalize, rotate, rotate_by
from cifarpipe.params import Augment

MEAN = torch.tensor([0.4914, 0.4822, 0.4465])
STD = torch.tensor([0.2470, 0.2435, 0.2616])


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    # At least 1 everywhere, so that black from outside can be told from the picture.
    return torch.randint(1, 256, (64, 32, 32, 3), generator=generator).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalize_is_torchvisions(images: torch.Tensor) -> None:
    ours = normalize(images, MEAN, STD)
    scaled = reference.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    torch.testing.assert_close(ours, reference.normalize(scaled, MEAN.tolist(), STD.tolist()))


@pytest.mark.parametrize("degrees", [-90.0, -30.0, -5.0, 0.0, 4.0, 45.0, 180.0])
def test_rotation_is_torchvisions(images: torch.Tensor, degrees: float) -> None:
    batch = images.permute(0, 3, 1, 2).float()
    ours = rotate_by(batch, torch.deg2rad(torch.full((len(batch),), degrees)))
    theirs = reference.rotate(batch, degrees, interpolation=InterpolationMode.BILINEAR)
    # torchvision fades the border with its mask of the picture; inside it both must agree.
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)


def test_every_image_gets_its_own_angle_within_bounds(images: torch.Tensor) -> None:
    batch = images.permute(0, 3, 1, 2).float()
    turned = rotate(batch, 20.0, seeded())
    angles = torch.deg2rad((2 * torch.rand(len(batch), generator=seeded()) - 1) * 20)
    assert angles.abs().max() <= torch.pi / 9
    assert len(angles.unique()) == len(batch)
    torch.testing.assert_close(turned, rotate_by(batch, angles))


def test_every_crop_is_a_shift_of_the_padded_picture(images: torch.Tensor) -> None:
    padded = torch.nn.functional.pad(images, (0, 0, 4, 4, 4, 4))
    cropped = crop_and_flip(images, 4, flip=False, generator=seeded())
    places = set()
    for whole, part in zip(padded, cropped, strict=True):
        found = [
            (top, left)
            for top in range(9)
            for left in range(9)
            if torch.equal(whole[top : top + 32, left : left + 32], part)
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 30  # of 81; a shared draw would give one


def test_crops_are_uniform() -> None:
    # A picture that holds its own coordinates: the corner pixel tells the shift.
    rows = torch.arange(1, 33, dtype=torch.uint8)
    picture = torch.stack([*torch.meshgrid(rows, rows, indexing="ij"), rows.expand(32, 32)], -1)
    many = picture.expand(20_000, 32, 32, 3)
    cropped = crop_and_flip(many, 4, flip=False, generator=seeded())
    for axis in (0, 1):
        shifts = cropped[:, 16, 16, axis].long() - 17
        counts = torch.bincount(shifts + 4, minlength=9)
        assert counts.shape == (9,)
        expected = 20_000 / 9
        assert ((counts - expected) ** 2 / expected).sum() < 26.1  # chi², 8 degrees, p = 0.001


def test_flip_mirrors_half_of_the_images(images: torch.Tensor) -> None:
    many = images[:1].expand(10_000, -1, -1, -1)
    flipped = crop_and_flip(many, 0, flip=True, generator=seeded())
    is_mirrored = (flipped == images[0].flip(1)).all(dim=(1, 2, 3))
    is_same = (flipped == images[0]).all(dim=(1, 2, 3))
    assert (is_mirrored | is_same).all()
    assert abs(is_mirrored.float().mean() - 0.5) < 0.02  # four standard deviations


def test_cutout_blanks_one_square_that_the_border_cuts() -> None:
    blanked = cutout(torch.ones(5_000, 3, 32, 32), 16, seeded()) == 0
    assert torch.equal(blanked[:, 0], blanked[:, 1])
    heights, widths = blanked[:, 0].any(2).sum(1), blanked[:, 0].any(1).sum(1)
    assert torch.equal(blanked[:, 0].sum((1, 2)), heights * widths)  # a full rectangle
    assert heights.max() == widths.max() == 16
    assert heights.min() == widths.min() == 8  # its middle is never outside
    assert blanked[:, 0].any(0).all()


def test_all_together_keep_shape_and_depend_on_the_generator_alone(images: torch.Tensor) -> None:
    recipe = Augment(crop=4, flip=True, rotate=5.0, cutout=8)
    first, again, other = (
        augment(images, recipe, mean=MEAN, std=STD, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert first.shape == (64, 3, 32, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_rotation_brings_in_is_black() -> None:
    white = torch.full((8, 32, 32, 3), 255, dtype=torch.uint8)
    recipe = Augment(crop=0, flip=False, rotate=45.0, cutout=0)
    batch = augment(white, recipe, mean=MEAN, std=STD, generator=seeded())
    pixels = batch * STD[:, None, None] + MEAN[:, None, None]
    assert pixels.min() > -1e-5
    assert pixels[:, :, 16, 16].min() > 0.999
    assert pixels[:, :, 0, 0].min() < 1e-5


def test_nothing_asked_for_is_plain_normalisation(images: torch.Tensor) -> None:
    recipe = Augment(crop=0, flip=False, rotate=0.0, cutout=0)
    batch = augment(images, recipe, mean=MEAN, std=STD, generator=seeded())
    assert torch.equal(batch, normalize(images, MEAN, STD))
