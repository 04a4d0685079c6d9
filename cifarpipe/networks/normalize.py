"""From stored bytes to the input of a network."""

import torch
from torch import Tensor


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Convert `[B, H, W, 3]` uint8 to `[B, 3, H, W]` float32 and standardise each channel.

    Args:
        images: Pixels as they are stored.
        mean: `[3]`, of values in 0 to 1.
        std: `[3]`, of values in 0 to 1.
    """
    return standardize(to_unit(images.permute(0, 3, 1, 2)), mean, std)


def to_unit(images: Tensor) -> Tensor:
    """Convert `[B, 3, H, W]` uint8 of any memory layout to contiguous float32 in 0 to 1."""
    return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)


def standardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract `mean` from `[B, 3, H, W]` and divide by `std`, in place."""
    return images.sub_(mean[:, None, None]).div_(std[:, None, None])
