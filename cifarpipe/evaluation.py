"""A network's answers on a split, and what they are worth."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.augment import normalize
from cifarpipe.devices import autocast

Logits = NDArray[np.float32]
Z_95 = 1.959963984540054  # the normal distribution's 97.5% point: 95% between ± this


@torch.inference_mode()
def compute_logits(
    model: nn.Module,
    images: Tensor,
    *,
    mean: Tensor,
    std: Tensor,
    batch_size: int,
    precision: str = "fp32",
) -> Tensor:
    """Return logits `[N, classes]` float32 of `images` `[N, H, W, 3]` uint8, in their order.

    The model is put into evaluation mode for the while and back into the mode it was in.
    """
    was_training = model.training
    model.eval()
    try:
        batches = []
        for batch in images.split(batch_size):
            with autocast(images.device, precision):
                batches.append(model(normalize(batch, mean, std)).float())
        return torch.cat(batches)
    finally:
        model.train(was_training)
