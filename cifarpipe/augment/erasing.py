"""Erase a part of the image: cutout's square and random erasing's rectangle."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cifarpipe.augment.transform import Drawn, EpochOrder, first_chosen, log_uniform

TRIES = 10  # as in torchvision's RandomErasing; if none fits, nothing is erased


@dataclass(frozen=True)
class Cutout:
    """Erase a square whose centre lies anywhere in the image (arXiv:1708.04552)."""

    side: int
    """Of the square, in pixels."""
    size: int
    """Height and width of the images, in pixels."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 4]`: top, left, height, width in pixels; may extend beyond the border."""
        corner = rng.integers(0, self.size, (len(epoch), 2)) - self.side // 2
        return np.concatenate([corner, np.full_like(corner, self.side)], axis=1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Set pixels of `[B, 3, S, S]` float to 0, in place."""
        return images.mul_(outside(drawn, self.size))


@dataclass(frozen=True)
class RandomErasing:
    """Erase a rectangle of some images (arXiv:1708.04896), like torchvision's RandomErasing."""

    probability: float
    scale: tuple[float, float]
    """Smallest and largest area, as a fraction of the image's."""
    ratio: tuple[float, float]
    """Smallest and largest aspect ratio, height / width."""
    size: int
    """Height and width of the images, in pixels."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 4]`: top, left, height, width in pixels; all 0 if nothing is erased."""
        count = len(epoch)
        area = rng.uniform(*self.scale, (count, TRIES)) * self.size**2
        ratio = log_uniform(rng, self.ratio, (count, TRIES))
        heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (heights < self.size) & (widths < self.size)
        sides = np.stack([first_chosen(heights, fits), first_chosen(widths, fits)], axis=1)
        corner = np.floor(rng.random((count, 2)) * (self.size - sides + 1))
        erased = (rng.random(count) < self.probability) & fits.any(axis=1)
        return np.where(erased[:, None], np.concatenate([corner, sides], axis=1), 0).astype(int)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Set pixels of `[B, 3, S, S]` float to 0, in place."""
        return images.mul_(outside(drawn, self.size))


def outside(boxes: Tensor, size: int) -> Tensor:
    """Return `[B, 1, size, size]` float32: 0 inside the boxes, 1 elsewhere.

    Args:
        boxes: `[B, 4]`: top, left, height, width in pixels.
        size: Height and width of the images, in pixels.
    """
    place = torch.arange(size, device=boxes.device)

    def inside(start: Tensor, length: Tensor) -> Tensor:
        return ((place >= start[:, None]) & (place < (start + length)[:, None])).float()

    top, left, height, width = boxes.unbind(1)
    rows, columns = inside(top, height), inside(left, width)
    return 1 - rows[:, None, :, None] * columns[:, None, None, :]
