"""A network's answers on a batch of images: the forward pass, apart from what is made of it."""

import torch
from torch import Tensor, nn

from cifarpipe.augment import normalize
from cifarpipe.devices import autocast


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
