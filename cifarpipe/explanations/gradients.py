"""Gradients of the target classes' logits, in fp32, whatever mode the caller is in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def gradients_enabled(device: torch.device) -> Iterator[None]:
    """Compute gradients, without autocast, even inside a caller's `no_grad` or autocast."""
    # inference_mode(False) enables gradients inside `no_grad`, too.
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        yield


def target_logit(model: Callable[[Tensor], Tensor], batch: Tensor, classes: Tensor) -> Tensor:
    """Return the logits of the target classes, summed over the images.

    Its gradient with respect to what was computed from an image, such as tokens or attention
    weights, is that of this image's own logit. To be called inside `gradients_enabled`.

    Args:
        model: Returns logits `[N, classes]`.
        batch: `[N, 3, H, W]`, normalised, on the model's device; copied, unless it requires
            gradients itself.
        classes: `[N]` the target class of each image.
    """
    # With gradients from the input on, inner values have one even if all weights are frozen.
    logits = model(batch if batch.requires_grad else batch.detach().clone().requires_grad_())
    return logits.gather(1, classes.to(logits.device)[:, None]).sum()
