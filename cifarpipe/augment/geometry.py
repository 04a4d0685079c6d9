"""Geometric transforms: random crop, resized crop, flip and rotation.

The first three work on uint8, and are fastest if channels come last in memory, as in stored images.
Rotation works on float. All agree with torchvision.transforms.v2 on tensors.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarpipe.augment.transform import Drawn, EpochOrder, first_chosen, log_uniform

TRIES = 10  # as in torchvision's RandomResizedCrop; if none fits, it crops the centre


@dataclass(frozen=True)
class Crop:
    """Pad with black on every side, then crop to the original size at a random position."""

    padding: int
    """On each side, in pixels."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 2]`: first row and first column in the padded image."""
        return rng.integers(0, 2 * self.padding + 1, (len(epoch), 2))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Crop `[B, 3, H, W]` uint8."""
        count, channels, height, width = images.shape
        pad = self.padding
        tall, wide = height + 2 * pad, width + 2 * pad
        padded = images.new_zeros(count, tall, wide, channels)
        padded[:, pad : pad + height, pad : pad + width] = images.permute(0, 2, 3, 1)
        # A row of the result is `width` consecutive pixels, which can be copied together. Each row
        # of `windows` is such a sequence; they start at every pixel and overlap.
        pixels = count * tall * wide
        windows = padded.as_strided((pixels - width + 1, width * channels), (channels, 1))
        first_rows = torch.arange(count, device=images.device) * tall + drawn[:, 0]
        rows = first_rows[:, None] + torch.arange(height, device=images.device)
        starts = rows * wide + drawn[:, 1, None]
        cropped = windows.index_select(0, starts.flatten())
        return cropped.view(count, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ResizedCrop:
    """Crop a random rectangle and resize it to the original size, bilinear (arXiv:1409.4842)."""

    scale: tuple[float, float]
    """Smallest and largest area, as a fraction of the image's."""
    ratio: tuple[float, float]
    """Smallest and largest aspect ratio, width / height."""
    size: int
    """Height and width of the images, in pixels."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 4]`: top, left, height, width in pixels."""
        area = rng.uniform(*self.scale, (len(epoch), TRIES)) * self.size**2
        ratio = log_uniform(rng, self.ratio, (len(epoch), TRIES))
        heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (heights >= 1) & (widths >= 1) & (heights <= self.size) & (widths <= self.size)
        none_fits = ~fits.any(axis=1)
        height = first_chosen(heights, fits)
        width = first_chosen(widths, fits)
        height[none_fits] = max(1, round(self.size / max(1.0, min(self.ratio))))
        width[none_fits] = max(1, round(self.size * min(1.0, max(self.ratio))))
        where = rng.random((len(epoch), 2))
        top = np.floor(where[:, 0] * (self.size - height + 1))
        left = np.floor(where[:, 1] * (self.size - width + 1))
        top[none_fits] = (self.size - height[none_fits]) // 2  # the centre
        left[none_fits] = (self.size - width[none_fits]) // 2
        return np.stack([top, left, height, width], axis=1).astype(np.float32)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Crop and resize `[B, 3, S, S]` uint8."""
        centres = (torch.arange(self.size, device=images.device) + 0.5) / self.size

        def fetched_from(start: Tensor, length: Tensor) -> Tensor:
            place = start[:, None] + centres * length[:, None]
            # Pixels outside the rectangle are not used, as if it were cropped before resizing.
            place = place.clamp(start[:, None] + 0.5, (start + length)[:, None] - 0.5)
            return 2 * place / self.size - 1

        top, left, height, width = drawn.unbind(1)
        rows, columns = fetched_from(top, height), fetched_from(left, width)
        shape = len(images), self.size, self.size
        grid = torch.stack(
            [columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1
        )
        enlarged = F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
        return enlarged.round_().to(torch.uint8)


class RandomFlip:
    """Flip horizontally with probability 1/2."""

    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N]` bool: whether each image is flipped."""
        return rng.random(len(epoch)) < 0.5

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Flip some images of `[B, 3, H, W]` uint8."""
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1)
        # Selecting whole images is several times faster than selecting pixels.
        both = torch.cat([rows, rows.flip(2)]).flatten(1)
        picked = both.index_select(0, torch.arange(count, device=images.device) + count * drawn)
        return picked.view(count, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class AlternatingFlip(RandomFlip):
    """Flip every image in every second epoch (arXiv:2404.00498).

    Two consecutive epochs show both orientations. Which comes first is drawn once per image.
    """

    seed: int

    def draw(self, _rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N]` bool: whether each image is flipped."""
        images = epoch.images
        first_side = np.random.default_rng(self.seed).random(images.max(initial=0) + 1) < 0.5
        return first_side[images] ^ (epoch.number % 2 == 0)


@dataclass(frozen=True)
class Rotate:
    """Rotate about the centre, bilinear; pixels from outside are black."""

    degrees: float
    """Largest angle in either direction."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N]` float32: counter-clockwise angles in radians."""
        return np.deg2rad(rng.uniform(-self.degrees, self.degrees, len(epoch))).astype(np.float32)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Rotate `[B, 3, S, S]` float, in which 0 is black."""
        size = images.shape[-1]
        middles = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
        across, down = middles[None, None, :], middles[None, :, None]
        cos, sin = torch.cos(drawn)[:, None, None], torch.sin(drawn)[:, None, None]
        # The source of each output pixel: the inverse rotation, with y pointing down.
        grid = torch.stack([across * cos - down * sin, across * sin + down * cos], dim=-1)
        return F.grid_sample(images, grid, mode="bilinear", align_corners=False)
