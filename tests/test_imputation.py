"""Imputation of removed pixels compared with grad-cam's, and with cases computed by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor

from cifarpipe.explanations import imputation
from cifarpipe.explanations.imputation import impute

Masks = NDArray[np.bool_]


def random_images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def random_masks(count: int, size: int, fraction: float = 0.5) -> Masks:
    return np.random.default_rng(0).random((count, size, size)) < fraction


def by_grad_cam(images: Tensor, removed: Masks, *, seed: int, noise: float) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fill = NoisyLinearImputer(noise)
        kept = torch.from_numpy(~removed).float()
        return torch.stack([fill(image, mask) for image, mask in zip(images, kept, strict=True)])


def lowest_ranked(size: int, fraction: float) -> Masks:
    """Remove a fraction of the pixels, those lowest in smooth maps: in large connected areas."""
    coarse = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[:, 0]
    ranks = maps.flatten(1).argsort(dim=1).argsort(dim=1).numpy()
    return (ranks < round(fraction * size**2)).reshape(4, size, size)


def extreme_masks(size: int) -> Masks:
    """Remove each side, the whole frame, all but one pixel in turn, isolated pixels, and none."""
    masks = np.zeros((9, size, size), bool)
    masks[0, 0] = masks[1, -1] = masks[2, :, 0] = masks[3, :, -1] = True
    masks[4] = True
    masks[4, 1:-1, 1:-1] = False
    masks[5:7] = True
    masks[5, size // 2, size // 3] = masks[6, 0, -1] = False
    masks[7, ::2, ::2] = True
    return masks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_pixels_equal_those_of_grad_cam(size: int, noise: float) -> None:
    fractions = (0.2, 0.5, 0.8)
    masks = np.concatenate(
        [
            *(random_masks(2, size, fraction) for fraction in fractions),
            *(lowest_ranked(size, fraction) for fraction in fractions),
            extreme_masks(size)[:-1],  # grad-cam fails if nothing is removed
        ]
    )
    images = random_images(len(masks), size, size)
    found = impute(images, masks, seed=3, noise=noise)
    expected = by_grad_cam(images, masks, seed=3, noise=noise)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3), (1, 6), (6, 1)])
def test_images_need_not_be_square(height: int, width: int) -> None:
    images = random_images(5, height, width)
    masks = np.random.default_rng(0).random((5, height, width)) < 0.5
    found = impute(images, masks, seed=0)
    np.testing.assert_allclose(
        found, by_grad_cam(images, masks, seed=0, noise=0.01), rtol=0, atol=2e-6
    )


def test_single_pixel_by_hand() -> None:
    """Direct neighbours weigh twice as much as diagonal ones; outside the image none counts."""
    image = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 16.0], [32.0, 64.0, 128.0]])
    images = torch.stack([image, -image])[None].repeat(3, 1, 1, 1)
    masks = np.zeros((3, 3, 3), bool)
    masks[0, 1, 1] = masks[1, 0, 1] = masks[2, 0, 2] = True
    found = impute(images, masks, seed=0, noise=0.0)
    centre = (2 * (2 + 8 + 16 + 64) + 1 + 4 + 32 + 128) / 12
    side = (2 * (1 + 4 + 0) + 8 + 16) / 8
    corner = (2 * (2 + 16) + 0) / 5
    for number, value in enumerate((centre, side, corner)):
        changed = image.clone()
        changed[torch.from_numpy(masks[number])] = value
        torch.testing.assert_close(found[number], torch.stack([changed, -changed]))


def test_two_adjacent_pixels_by_hand() -> None:
    """Of the row 1, x, y, 5: x = (1 + y) / 2 and y = (x + 5) / 2."""
    row = torch.tensor([1.0, 9.0, 9.0, 5.0]).view(1, 1, 1, 4)
    masks = np.array([[[False, True, True, False]]])
    found = impute(row, masks, seed=0, noise=0.0)
    assert found.flatten().tolist() == pytest.approx([1, 7 / 3, 11 / 3, 5])


def test_kept_pixels_and_arguments_are_unchanged() -> None:
    images, masks = random_images(4, 8, 8), random_masks(4, 8)
    before = images.clone(), masks.copy()
    found = impute(images, masks, seed=0)
    assert torch.equal(images, before[0])
    assert np.array_equal(masks, before[1])
    removed = torch.from_numpy(masks)[:, None].expand_as(images)
    assert torch.equal(found[~removed], images[~removed])
    assert (found[removed] != images[removed]).all()


def test_removed_values_have_no_influence() -> None:
    images, masks = random_images(4, 8, 8), random_masks(4, 8)
    others = images.masked_fill(torch.from_numpy(masks)[:, None], float("inf"))
    assert torch.equal(impute(images, masks, seed=0), impute(others, masks, seed=0))


def test_image_without_kept_pixel_becomes_zero() -> None:
    """Other images are as without it."""
    images, masks = random_images(3, 8, 8), random_masks(3, 8)
    masks[1] = True
    found = impute(images, masks, seed=0, noise=0.0)
    assert torch.equal(found[1], torch.zeros(3, 8, 8))
    assert torch.equal(found[::2], impute(images[::2], masks[::2], seed=0, noise=0.0))
    noisy = impute(images, masks, seed=0)
    assert noisy[1].std() == pytest.approx(0.01, rel=0.2)


def test_memory_layout_changes_no_value() -> None:
    images, masks = random_images(3, 8, 8), random_masks(3, 8)
    other = images.mT.contiguous().mT  # columns before rows
    assert torch.equal(impute(other, masks, seed=0), impute(images, masks, seed=0))


def test_image_of_which_nothing_is_removed_stays() -> None:
    """Other images are as without it."""
    images, masks = random_images(3, 8, 8), random_masks(3, 8)
    masks[1] = False
    found = impute(images, masks, seed=0, noise=0.0)
    assert torch.equal(found[1], images[1])
    assert torch.equal(found[::2], impute(images[::2], masks[::2], seed=0, noise=0.0))
    assert not torch.equal(found[0], images[0])


def test_order_of_images_changes_no_value() -> None:
    """Images with the same mask share one factorisation, at any position."""
    images, masks = random_images(6, 8, 8), random_masks(6, 8)
    masks[3] = masks[1]
    masks[5] = masks[1]
    found = impute(images, masks, seed=0, noise=0.0)
    order = [5, 2, 0, 1, 4, 3]
    assert torch.equal(found[order], impute(images[order], masks[order], seed=0, noise=0.0))
    for number in range(6):
        one = slice(number, number + 1)
        alone = impute(images[one], masks[one], seed=0, noise=0.0)
        torch.testing.assert_close(found[one], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 3 * 64, 2 * 3 * 64 + 5])
def test_batches_change_no_value(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = random_images(5, 8, 8), random_masks(5, 8)
    masks[4] = masks[0]
    whole = impute(images, masks, seed=2)
    monkeypatch.setattr(imputation, "VALUES_AT_ONCE", at_once)
    torch.testing.assert_close(impute(images, masks, seed=2), whole, rtol=0, atol=1e-6)


def test_noise_depends_only_on_seed() -> None:
    images, masks = random_images(4, 8, 8), random_masks(4, 8)
    torch.manual_seed(5)
    first = impute(images, masks, seed=1)
    after = torch.rand(())
    assert torch.equal(first, impute(images, masks, seed=1))
    assert not torch.equal(first, impute(images, masks, seed=2))
    assert torch.equal(first[:2], impute(images[:2], masks[:2], seed=1))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))  # the global generator is unchanged


def test_noise_has_the_requested_standard_deviation() -> None:
    """It is independent between images with equal masks, and between channels."""
    images = random_images(1, 32, 32).repeat(40, 1, 1, 1)
    masks = np.repeat(random_masks(1, 32), 40, axis=0)
    clean = impute(images, masks, seed=0, noise=0.0)
    noise = (impute(images, masks, seed=0, noise=0.2) - clean)[:, :, torch.from_numpy(masks[0])]
    assert noise.mean().abs() < 0.005
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    for one, two in ((noise[0], noise[1]), (noise[:, 0], noise[:, 1])):
        correlation = np.corrcoef(one.flatten(), two.flatten())[0, 1]
        assert abs(correlation) < 0.1


def test_no_images_give_no_images() -> None:
    assert impute(random_images(0, 8, 8), random_masks(0, 8), seed=0).shape == (0, 3, 8, 8)


def test_large_images_are_solved_exactly() -> None:
    """Of 40,000 pixels between two sides that are kept, each has its row's value."""
    images = torch.linspace(-1, 1, 200).view(1, 1, 200, 1).repeat(1, 2, 1, 204)
    masks = np.zeros((1, 200, 204), bool)
    masks[:, 1:-1] = True
    found = impute(images, masks, seed=0, noise=0.0)
    torch.testing.assert_close(found, images, rtol=0, atol=1e-5)


def test_wrong_number_of_masks_is_refused() -> None:
    message = r"removed has shape \(3, 8, 8\).*\(2, 3, 8, 8\).*\(2, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        impute(random_images(2, 8, 8), random_masks(3, 8), seed=0)
