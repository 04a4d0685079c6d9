"""Methods for vision transformers that were compared with those in use: LeGrad and LibraGrad."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cifarpipe.explanations.attention import attention_weights
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
    with torch.inference_mode(False), collected_outputs(model.blocks) as outputs:
        with attention_weights(model.attentions) as weights:
            model(batch.detach().clone().requires_grad_())
        total = torch.zeros(len(batch), weights[0].shape[-1], device=batch.device)
        for tokens, attention in zip(outputs, weights, strict=True):
            logit = target_logit(model.forward_head(tokens), classes)
            (gradient,) = torch.autograd.grad(logit, attention, retain_graph=True)
            total += gradient.clamp(min=0).mean(dim=(1, 2))
    return on_grid(model, total)


def libra_input_gradient(model: Transformer, batch: Tensor, classes: Tensor) -> Maps:
    """Return the tokens before the first block times their balanced gradient, summed.

    LibraGrad's input × gradient, arXiv:2411.16760.
    """
    return _libra(model, batch, classes, slice(1))


def libra_full(model: Transformer, batch: Tensor, classes: Tensor) -> Maps:
    """Return the tokens before every block times their balanced gradient, summed over blocks.

    LibraGrad's sum over layers, arXiv:2411.16760, without the shares of the biases.
    """
    return _libra(model, batch, classes, slice(None))


def balanced(make: Callable[[Tensor, Tensor], Maps], model: nn.Module) -> Any:
    """Return the same function of maps, computed with balanced gradients."""

    def make_balanced(batch: Tensor, classes: Tensor) -> Maps:
        with balanced_gradients(model):
            return make(batch, classes)

    return make_balanced


def _libra(model: Transformer, batch: Tensor, classes: Tensor, blocks: slice) -> Maps:
    with (
        torch.inference_mode(False),
        balanced_gradients(model),
        collected_inputs(model.blocks) as inputs,
    ):
        logit = target_logit(model(batch.detach().clone().requires_grad_()), classes)
        tokens = inputs[blocks]
        gradients = torch.autograd.grad(logit, tokens)
    shares = [(t * g).sum(dim=2) for t, g in zip(tokens, gradients, strict=True)]
    return on_grid(model, torch.stack(shares).sum(dim=0))


@contextmanager
def balanced_gradients(model: nn.Module) -> Iterator[None]:
    """Balance gradients as LibraGrad does: factors that scale a signal count as constants.

    These are the attention weights, the standard deviation of a norm, and the gate of a GELU. The
    network is then locally linear in its tokens, and its output is unchanged.
    """
    with ExitStack() as restored:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                restored.callback(module.register_forward_hook(_balanced_norm).remove)
            elif isinstance(module, nn.GELU):
                restored.callback(module.register_forward_hook(_balanced_gelu).remove)
            elif isinstance(module, nn.Softmax):
                restored.callback(module.register_forward_hook(_constant).remove)
        for attention in model.attentions:
            restored.callback(setattr, attention, "explicit", attention.explicit)
            attention.explicit = True
        yield


def _balanced_norm(norm: nn.LayerNorm, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
    (x,) = inputs
    deviation = (x.var(dim=-1, keepdim=True, unbiased=False) + norm.eps).sqrt().detach()
    return (x - x.mean(dim=-1, keepdim=True)) / deviation * norm.weight + norm.bias


def _balanced_gelu(_gelu: nn.GELU, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
    (x,) = inputs
    return x * ((1 + torch.erf(x / 2**0.5)) / 2).detach()


def _constant(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach().requires_grad_()  # a constant whose own gradient can still be read


@contextmanager
def collected_outputs(modules: nn.Sequential) -> Iterator[list[Tensor]]:
    """Collect the output of each module in a forward pass."""
    with ExitStack() as restored:
        found: list[Tensor] = []
        for module in modules:
            hook = module.register_forward_hook(lambda _m, _i, output: found.append(output))
            restored.callback(hook.remove)
        yield found


@contextmanager
def collected_inputs(modules: nn.Sequential) -> Iterator[list[Tensor]]:
    """Collect the input of each module in a forward pass."""
    with ExitStack() as restored:
        found: list[Tensor] = []
        for module in modules:
            hook = module.register_forward_pre_hook(lambda _m, inputs: found.append(inputs[0]))
            restored.callback(hook.remove)
        yield found


def target_logit(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the sum of each image's logit of its target class."""
    return logits.gather(1, classes.to(logits.device)[:, None]).sum()


def on_grid(model: Transformer, values: Tensor) -> Maps:
    """Return the values of the patch tokens, the last of `[N, tokens]`, as maps."""
    patches = values[:, -(model.grid**2) :].detach()
    maps: Maps = patches.reshape(-1, model.grid, model.grid).float().cpu().numpy()
    return maps
