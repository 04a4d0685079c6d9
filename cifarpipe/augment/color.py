"""Random changes of brightness, contrast, saturation and hue."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cifarpipe.augment.transform import Drawn, EpochOrder

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, rounded as in torchvision


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue, in this order.

    Each equals torchvision's function `adjust_…` on floats. Unlike here, torchvision's ColorJitter
    applies them in a random order.
    """

    brightness: float
    """The factor is drawn from 1 ± this, at least 0; likewise for the next two."""
    contrast: float
    saturation: float
    hue: float
    """Largest shift in either direction, in turns of the colour wheel."""
    on_host: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 4]` float32: three factors and a shift."""
        reach = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        middle = np.array([1.0, 1.0, 1.0, 0.0])
        lowest = np.maximum(middle - reach, [0, 0, 0, -0.5])
        return rng.uniform(lowest, middle + reach, (len(epoch), 4)).astype(np.float32)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change `[B, 3, H, W]` float in 0 to 1; may work in place."""
        brightness, contrast, saturation, hue = drawn[:, :, None, None, None].unbind(1)
        if self.brightness:
            images.mul_(brightness).clamp_(0, 1)
        if self.contrast:
            blend_(images, grey(images).mean(dim=(2, 3), keepdim=True), contrast)
        if self.saturation:
            blend_(images, grey(images), saturation)
        if self.hue:
            images = shift_hue(images, hue[:, 0])
        return images


def grey(images: Tensor) -> Tensor:
    """Return the luma `[B, 1, H, W]` of `[B, 3, H, W]`."""
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def blend_(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Return share × images + (1 − share) × other, clamped to 0 to 1, in place."""
    return images.sub_(other).mul_(share).add_(other).clamp_(0, 1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue of `[B, 3, H, W]` in 0 to 1 by `[B, 1, 1]` turns, in the HSV colour model."""
    red, green, blue = images.unbind(1)
    value, lowest = images.amax(1), images.amin(1)
    chroma = value - lowest
    scale = torch.where(chroma > 0, chroma, 1.0)
    # Hue in sixths of a turn, from the largest channel. Grey has no hue, and chroma 0 ignores it.
    sixths = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    turned = sixths + 6 * turns

    def channel(phase: int) -> Tensor:
        place = (turned + phase).remainder(6)
        return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)
