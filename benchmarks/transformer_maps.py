"""Other methods for vision transformers that were compared with those in use."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor

from cifarpipe.explanations.attention import Attention, attention_weights
from cifarpipe.explanations.libragrad import balanced_gradients, has_attention_blocks
from cifarpipe.models.vit import ViT
from cifarpipe.models.vit_conv import ViTConv
from cifarpipe.results.maps import Maps

Transformer = ViT | ViTConv


def legrad(model: Transformer, batch: Tensor, classes: Tensor) -> Maps:
    """Return the positive gradient of each block's own logit with respect to its attention.

    LeGrad, arXiv:2404.03214: the head reads the output of every block; the mean over blocks, heads
    and queries.

    Args:
        model: In evaluation mode.
        batch: `[N, 3, S, S]`, normalised.
        classes: `[N]`.

    Returns:
        `[N, grid, grid]`, not negative.
    """
    outputs: list[Tensor] = []
    with torch.inference_mode(False), ExitStack() as hooks:
        for block in model.blocks:
            hook = block.register_forward_hook(lambda _b, _i, output: outputs.append(output))
            hooks.callback(hook.remove)
        attentions = cast(Sequence[Attention], model.attentions)
        weights = hooks.enter_context(attention_weights(attentions))
        model(batch.detach().clone().requires_grad_())
        total = torch.zeros(len(batch), weights[0].shape[-1], device=batch.device)
        for tokens, attention in zip(outputs, weights, strict=True):
            logits = model.forward_head(tokens)
            target = logits.gather(1, classes.to(logits.device)[:, None]).sum()
            (gradient,) = torch.autograd.grad(target, attention, retain_graph=True)
            total += gradient.clamp(min=0).mean(dim=(1, 2))
    patches = total[:, -(model.grid**2) :]
    maps: Maps = patches.reshape(-1, model.grid, model.grid).float().cpu().numpy()
    return maps


def balanced(
    make: Callable[[Tensor, Tensor], Maps], model: Transformer
) -> Callable[[Tensor, Tensor], Maps]:
    """Return the same function of maps, computed with LibraGrad's balanced gradients."""

    def make_balanced(batch: Tensor, classes: Tensor) -> Maps:
        assert has_attention_blocks(model)
        with balanced_gradients(model):
            return make(batch, classes)

    return make_balanced
