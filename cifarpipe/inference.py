"""A network's answers on a batch of images: the forward pass, apart from what is made of it."""

import torch
from torch import Tensor, nn
from tqdm import tqdm

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
    progress: str | None = None,
) -> Tensor:
    """Return logits `[N, classes]` float32 of `images` `[N, H, W, 3]` uint8, in their order.

    The model is put into evaluation mode for the while and back into the mode it was in.

    Args:
        model: Returns logits of a normalised batch.
        images: On the model's device.
        mean: `[3]`, in 0 … 1.
        std: `[3]`, in 0 … 1.
        batch_size: Images at a time.
        precision: `bf16` or `fp32`.
        progress: Name of a bar to show on a terminal.
    """
    was_training = model.training
    model.eval()
    try:
        batches = []
        hidden = True if progress is None else None  # None: shown on a terminal only
        parts = images.split(batch_size)
        for batch in tqdm(parts, desc=progress, unit=" batches", disable=hidden, leave=False):
            with autocast(images.device, precision):
                batches.append(model(normalize(batch, mean, std)).float())
        return torch.cat(batches)
    finally:
        model.train(was_training)
