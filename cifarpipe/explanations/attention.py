"""Where a vision transformer looked, from its attention: maps beside the class activation maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from cifarpipe.explanations.gradcam import Maps

ATTENTION_METHODS = ("gradient_attention", "attention_rollout")


class Attention(Protocol):
    """A part that mixes tokens."""

    kept: list[Tensor] | None
    """Where it puts its attention `[B, heads, N, N]` while somebody asks for it."""


class Attentive(Protocol):
    """A network of tokens, the last of which are a square of patches."""

    grid: int
    """Patches of a side."""

    @property
    def attentions(self) -> Sequence[Attention]:
        """What mixes the tokens, in order of use."""

    @property
    def read_tokens(self) -> slice:
        """Which tokens the answer is the mean of: the class token, or all."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return logits `[B, classes]`."""
        ...


def attention_rollout(model: Attentive, batch: Tensor) -> Maps:
    """Follow the mean attention of what is read back through all blocks (arXiv:2005.00928).

    It knows no class: the same map for each.

    Args:
        model: In evaluation mode.
        batch: `[N, 3, H, W]`, normalised, on the model's device.

    Returns:
        `[N, h, w]` on the grid of patches, above 0.
    """
    with torch.no_grad(), _kept(model.attentions) as kept:
        model(batch)
    flow = _identity(kept[0])
    for attention in kept:
        flow = (attention.mean(dim=1) + _identity(attention)) / 2 @ flow
    return _of_patches(model, flow)


def gradient_attention(model: Attentive, batch: Tensor, classes: Tensor) -> Maps:
    """Follow attention back as far as it spoke for a class (arXiv:2103.15679, self-attention).

    Args:
        model: In evaluation mode.
        batch: `[N, 3, H, W]`, normalised, on the model's device.
        classes: `[N]` the label asked about for each image.

    Returns:
        `[N, h, w]` on the grid of patches, 0 or above.
    """
    with (
        torch.inference_mode(False),  # turns gradients on again after `no_grad` too
        torch.autocast(batch.device.type, enabled=False),
        _kept(model.attentions) as kept,
    ):
        # Attention needs a gradient even where all weights are frozen.
        logits = model(batch.detach().clone().requires_grad_())
        asked = logits.gather(1, classes.to(logits.device)[:, None]).sum()
        gradients = torch.autograd.grad(asked, kept)
    flow = _identity(kept[0])
    for attention, gradient in zip(kept, gradients, strict=True):
        spoke_for = (attention.detach() * gradient).clamp(min=0).mean(dim=1)
        flow = flow + spoke_for @ flow
    return _of_patches(model, flow - _identity(flow))


@contextmanager
def _kept(attentions: Sequence[Attention]) -> Iterator[list[Tensor]]:
    """Collect what these compute within this context."""
    kept: list[Tensor] = []
    for attention in attentions:
        attention.kept = kept
    try:
        yield kept
    finally:
        for attention in attentions:
            attention.kept = None


def _identity(like: Tensor) -> Tensor:
    """Return `[N, tokens, tokens]` where every token stays its own."""
    one = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    return one.expand(len(like), -1, -1)


def _of_patches(model: Attentive, flow: Tensor) -> Maps:
    """Return what the tokens that are read got from each patch."""
    patches = flow[:, model.read_tokens, -(model.grid**2) :].mean(dim=1)
    maps: Maps = patches.reshape(-1, model.grid, model.grid).float().cpu().numpy()
    return maps
