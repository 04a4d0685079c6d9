"""Maps of a vision transformer from gradients that are balanced: LibraGrad (arXiv:2411.16760)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from cifarpipe.explanations.attention import AttentionNetwork
from cifarpipe.explanations.gradients import gradients_enabled, target_logit
from cifarpipe.results.maps import Maps


class BlockNetwork(AttentionNetwork, Protocol):
    """A network of tokens that pass through blocks of attention, layer norm and GELU."""

    blocks: nn.Sequential
    """Each maps tokens `[B, N, C]`, the patch tokens last, to tokens."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules."""
        ...


def has_attention_blocks(model: nn.Module) -> TypeGuard[BlockNetwork]:
    """Return whether a network is a `BlockNetwork`."""
    return all(hasattr(model, name) for name in ("blocks", "grid", "attentions", "pooled_tokens"))


def libragrad(model: BlockNetwork, batch: Tensor, classes: Tensor) -> Maps:
    """Multiply the tokens before every block by their balanced gradients, and sum over the blocks.

    The sum over the tokens of one block is the class's logit without the shares of the biases that
    follow, which belong to no position.

    Args:
        model: In evaluation mode.
        batch: `[N, 3, H, W]`, normalised, on the model's device.
        classes: `[N]` the target class of each image.

    Returns:
        `[N, h, w]` on the grid of patches, signed; without the share of a class token.
    """
    tokens: list[Tensor] = []
    with gradients_enabled(batch.device), balanced_gradients(model), ExitStack() as hooks:
        for block in model.blocks:
            hook = block.register_forward_pre_hook(lambda _block, inputs: tokens.append(*inputs))
            hooks.callback(hook.remove)
        gradients = torch.autograd.grad(target_logit(model, batch, classes), tokens)
    shares = [(x * gradient).sum(dim=2) for x, gradient in zip(tokens, gradients, strict=True)]
    patches = torch.stack(shares).detach().sum(dim=0)[:, -(model.grid**2) :]
    maps: Maps = patches.reshape(-1, model.grid, model.grid).float().cpu().numpy()
    return maps


@contextmanager
def balanced_gradients(model: BlockNetwork) -> Iterator[None]:
    """Treat factors that depend on the image as constants in every gradient in this context.

    They are the attention weights, the standard deviation in a layer norm, and the factor by which
    a GELU multiplies. Without them the network is linear in its tokens, so that gradients show what
    is added to the logit. Outputs stay the same; hooks and `explicit` are restored afterwards.
    """
    balance: dict[type[nn.Module], Callable[..., Tensor]] = {
        nn.LayerNorm: _balanced_norm,
        nn.GELU: _balanced_gelu,
        nn.Softmax: _constant,
    }
    with ExitStack() as restored:
        for attention in model.attentions:
            restored.callback(setattr, attention, "explicit", attention.explicit)
            attention.explicit = True
        for module in model.modules():
            for kind, hook in balance.items():
                if isinstance(module, kind):
                    restored.callback(module.register_forward_hook(hook).remove)
        yield


def _balanced_norm(norm: nn.LayerNorm, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
    (x,) = inputs
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    normalised = centred / deviation.detach()
    weight, bias = norm.weight, norm.bias  # each may be None
    scaled = normalised if weight is None else normalised * weight
    return scaled if bias is None else scaled + bias


def _balanced_gelu(_gelu: nn.GELU, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    gate = torch.where(x == 0, 0.5, output / x)  # so that either form of GELU keeps its output
    return x * gate.detach()


def _constant(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output.detach().requires_grad_()  # its own gradient can still be read
