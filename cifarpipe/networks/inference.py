"""A network's answers on many images: the forward pass, apart from what is made of it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.networks.devices import autocast
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.normalize import normalize


@torch.inference_mode()
def compute_logits(
    model: nn.Module,
    images: ImageStore,
    which: NDArray[np.int64] | None = None,
    *,
    mean: Tensor,
    std: Tensor,
    batch_size: int,
    precision: str = "fp32",
    mirrored: bool = False,
    progress: str | None = None,
) -> Tensor:
    """Return logits `[N, classes]` float32 of images, in their order.

    The model is put into evaluation mode for the while and back into the mode it was in.

    Args:
        model: Returns logits of a normalised batch.
        images: On the model's device.
        which: `[N]` indices of images; all where not given.
        mean: `[3]`, in 0 … 1.
        std: `[3]`, in 0 … 1.
        batch_size: Images at a time.
        precision: `bf16` or `fp32`.
        mirrored: Ask about the images' mirror images, left for right.
        progress: Name of a bar to show on a terminal.
    """
    was_training = model.training
    model.eval()
    try:
        logits = []
        which = np.arange(len(images)) if which is None else which
        parts = np.split(which, range(batch_size, len(which), batch_size))
        hidden = True if progress is None else None  # None: shown on a terminal only
        with tqdm(
            total=len(parts), desc=progress, unit=" batches", disable=hidden, leave=False
        ) as bar:
            for batch in images.batches(parts):
                inputs = normalize(batch, mean, std)
                with autocast(images.device, precision):
                    logits.append(model(inputs.flip(3) if mirrored else inputs).float())
                bar.update()
        return torch.cat(logits)
    finally:
        model.train(was_training)
