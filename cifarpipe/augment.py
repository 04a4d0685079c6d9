"""Random changes of whole batches of images on their device, a draw of its own for every image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarpipe.params import Augment


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn `[B, H, W, 3]` uint8 into `[B, 3, H, W]` float32 of zero mean and unit deviation.

    Args:
        images: Pixels as they are stored.
        mean: `[3]`, in 0 … 1.
        std: `[3]`, in 0 … 1.
    """
    scaled = images.permute(0, 3, 1, 2).float() / 255
    return (scaled - mean[:, None, None]) / std[:, None, None]


def augment(
    images: Tensor, recipe: Augment, *, mean: Tensor, std: Tensor, generator: torch.Generator
) -> Tensor:
    """Augment and normalise a batch; this is the one place that says in which order.

    Crop and flip move whole pixels, rotation interpolates them; what comes in from outside the
    picture is black, as in torchvision. Cutout comes last and blanks to the mean.

    Args:
        images: `[B, H, W, 3]` uint8.
        recipe: Which changes, how strong.
        mean: `[3]`, in 0 … 1.
        std: `[3]`, in 0 … 1.
        generator: Of the draws, on the images' device.

    Returns:
        `[B, 3, H, W]` float32.
    """
    if recipe.crop or recipe.flip:
        images = crop_and_flip(images, recipe.crop, flip=recipe.flip, generator=generator)
    if recipe.rotate:
        # Rotated as numbers that are 0 for black, since 0 is what comes in from outside.
        black = normalize(torch.zeros_like(images[:1, :1, :1]), mean, std)
        batch = rotate(normalize(images, mean, std) - black, recipe.rotate, generator) + black
    else:
        batch = normalize(images, mean, std)
    if recipe.cutout:
        batch = cutout(batch, recipe.cutout, generator)
    return batch


def crop_and_flip(
    images: Tensor, padding: int, *, flip: bool, generator: torch.Generator
) -> Tensor:
    """Shift every image by up to `padding` pixels each way and mirror every second one by chance.

    Args:
        images: `[B, H, W, 3]` uint8.
        padding: Pixels of black on each side before the crop back to size.
        flip: Whether to mirror, with probability one half.
        generator: Of the draws.

    Returns:
        `[B, H, W, 3]` uint8.
    """
    batch, height, width, _ = images.shape
    device = images.device
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    top, left = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator, device=device)
    columns = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = top + torch.arange(height, device=device)
    columns = left + columns
    which = torch.arange(batch, device=device)
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]]


def rotate(batch: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn every image by up to `degrees` to either side, bilinear, 0 from outside.

    Args:
        batch: `[B, C, H, W]` float, square.
        degrees: Largest angle.
        generator: Of the draws.

    Returns:
        `[B, C, H, W]`.
    """
    drawn = torch.rand(len(batch), generator=generator, device=batch.device)
    return rotate_by(batch, torch.deg2rad((2 * drawn - 1) * degrees))


def rotate_by(batch: Tensor, angles: Tensor) -> Tensor:
    """Turn each square image of `[B, C, H, W]` counter-clockwise by its angle of `[B]`, radians."""
    cos, sin = torch.cos(angles), torch.sin(angles)
    nil = torch.zeros_like(cos)
    # Where each pixel of the result is fetched from: the opposite turn, y pointing down.
    fetch = torch.stack([cos, -sin, nil, sin, cos, nil], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(fetch, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def cutout(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Blank a square of every image to 0, cut off at the border (arXiv:1708.04552).

    Args:
        batch: `[B, C, H, W]` float, normalised, so that 0 is the mean.
        side: Of the square, pixels.
        generator: Of the draws of its middle, anywhere in the image.

    Returns:
        `[B, C, H, W]`.
    """
    size, _, height, width = batch.shape

    def inside(length: int) -> Tensor:
        middle = torch.randint(0, length, (size, 1), generator=generator, device=batch.device)
        place = torch.arange(length, device=batch.device)
        first = middle - side // 2
        return (place >= first) & (place < first + side)

    blank = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return batch.masked_fill(blank, 0.0)
