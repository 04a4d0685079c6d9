"""Random weights with which every part of a network matters to its logits.

New networks have small weights: attention is almost uniform, norms do nothing, and an error in such
a part hardly changes the logits.
"""

import torch
from torch import Tensor, nn


def randomise_weights(model: nn.Module, seed: int = 0) -> None:
    """Draw all weights so that every layer's output has about unit variance."""
    generator = torch.Generator().manual_seed(seed)
    norms = nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight /= module.weight[0].numel() ** 0.5
            elif isinstance(module, norms):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias *= 0.3


@torch.no_grad()
def lower_gelu_input(layer: nn.Conv2d, mean: float, scale: float) -> None:
    """Make a layer's output clearly negative, where exact and tanh GELU differ by some percent."""
    layer.weight *= scale
    layer.bias.mul_(0.2).add_(mean)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference, relative to that of `expected`."""
    return float((found - expected).norm() / expected.norm())
