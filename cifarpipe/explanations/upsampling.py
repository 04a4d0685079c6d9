"""Maps at the size of the images."""

import numpy as np
import torch
import torch.nn.functional as F

from cifarpipe.results.maps import Maps


def upsample(maps: Maps, size: int) -> Maps:
    """Upsample maps `[N, h, w]` to `[N, size, size]`, bilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    large = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
    return large[:, 0].numpy()
