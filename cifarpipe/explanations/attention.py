"""Maps of a vision transformer from its attention weights."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from cifarpipe.explanations.gradients import gradients_enabled, target_logit
from cifarpipe.results.maps import Maps


class Attention(Protocol):
    """A layer that mixes tokens."""

    explicit: bool
    """Whether the attention weights are computed as the output of `softmax`."""
    softmax: nn.Module
    """Its output: attention weights `[B, heads, N, N]`."""


class AttentionNetwork(Protocol):
    """A network of tokens, the last of which are a square grid of patches."""

    grid: int
    """Patches per side."""

    @property
    def attentions(self) -> Sequence[Attention]:
        """The attentions, in order of use."""

    @property
    def pooled_tokens(self) -> slice:
        """Which tokens the head reads the mean of."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return logits `[B, classes]`."""
        ...


def attention_rollout(model: AttentionNetwork, batch: Tensor) -> Maps:
    """Trace the pooled tokens' mean attention back through all blocks (arXiv:2005.00928).

    Class-agnostic: the same map for every class.

    Args:
        model: In evaluation mode.
        batch: `[N, 3, H, W]`, normalised, on the model's device.

    Returns:
        `[N, h, w]` on the grid of patches, positive.
    """
    with torch.no_grad(), attention_weights(model.attentions) as weights:
        model(batch)
    flow = _identity(weights[0])
    for attention in weights:
        flow = (attention.mean(dim=1) + _identity(attention)) / 2 @ flow
    return _patch_maps(model, flow)


def gradient_attention(model: AttentionNetwork, batch: Tensor, classes: Tensor) -> Maps:
    """Trace attention back, weighted by its positive gradient (arXiv:2103.15679, self-attention).

    Args:
        model: In evaluation mode.
        batch: `[N, 3, H, W]`, normalised, on the model's device.
        classes: `[N]` the target class of each image.

    Returns:
        `[N, h, w]` on the grid of patches, not negative.
    """
    with gradients_enabled(batch.device), attention_weights(model.attentions) as weights:
        gradients = torch.autograd.grad(target_logit(model, batch, classes), weights)
    flow = _identity(weights[0])
    for attention, gradient in zip(weights, gradients, strict=True):
        positive = (attention.detach() * gradient).clamp(min=0).mean(dim=1)
        flow = flow + positive @ flow
    return _patch_maps(model, flow - _identity(flow))


@contextmanager
def attention_weights(attentions: Sequence[Attention]) -> Iterator[list[Tensor]]:
    """Collect the attention weights `[B, heads, N, N]` of every forward pass in this context.

    Hooks and `explicit` are restored afterwards.
    """
    collected: list[Tensor] = []
    with ExitStack() as restored:
        for attention in attentions:
            restored.callback(setattr, attention, "explicit", attention.explicit)
            attention.explicit = True
            hook = attention.softmax.register_forward_hook(
                lambda _module, _inputs, weights: collected.append(weights)
            )
            restored.callback(hook.remove)
        yield collected


def _identity(like: Tensor) -> Tensor:
    """Return identity matrices `[N, tokens, tokens]`."""
    one = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    return one.expand(len(like), -1, -1)


def _patch_maps(model: AttentionNetwork, flow: Tensor) -> Maps:
    """Return what the pooled tokens received from each patch."""
    patches = flow[:, model.pooled_tokens, -(model.grid**2) :].mean(dim=1)
    maps: Maps = patches.reshape(-1, model.grid, model.grid).float().cpu().numpy()
    return maps
