"""The forward pass of a network over many images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.normalize import normalize
from cifarpipe.networks.precision import autocast


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

    The model runs in evaluation mode and returns to the mode it was in.

    Args:
        model: Returns logits of a normalised batch.
        images: On the model's device.
        which: `[N]` indices of images; by default all.
        mean: `[3]`, of values in 0 to 1.
        std: `[3]`, of values in 0 to 1.
        batch_size: Images per forward pass.
        precision: `bf16` or `fp32`.
        mirrored: Flip the images horizontally.
        progress: Label of a progress bar; None shows none, nor does a log.
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
