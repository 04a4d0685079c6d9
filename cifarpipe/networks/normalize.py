"""Images as networks take them: from stored bytes to numbers of zero mean and unit deviation."""

import torch
from torch import Tensor


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn `[B, H, W, 3]` uint8 into `[B, 3, H, W]` float32 of zero mean and unit deviation.

    Args:
        images: Pixels as they are stored.
        mean: `[3]`, in 0 … 1.
        std: `[3]`, in 0 … 1.
    """
    return standardize(to_unit(images.permute(0, 3, 1, 2)), mean, std)


def to_unit(images: Tensor) -> Tensor:
    """Turn `[B, 3, H, W]` uint8 of any layout into planes of float32 in 0 … 1."""
    return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)


def standardize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Take `mean` from `[B, 3, H, W]` and divide by `std`, in place."""
    return images.sub_(mean[:, None, None]).div_(std[:, None, None])
