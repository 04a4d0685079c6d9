"""Muon: momentum whose update is orthogonalised, so that all directions of a matrix change alike.

Keller Jordan, https://kellerjordan.github.io/posts/muon; the update's scale as in arXiv:2502.16982,
so that learning rates and weight decays of AdamW fit. `torch.optim.Muon` computes the same for
matrices; this one treats a convolution's kernel as the matrix from all its inputs to its outputs.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 5  # of the Newton-Schulz iteration
# Of its polynomial a x + b x³ + c x⁵, steep at 0 so that few steps lift small singular values.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
UPDATE_RMS = 0.2  # root mean square of an update at learning rate 1, about that of AdamW
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum with decoupled weight decay.

    Args:
        params: Kernels of two or more dimensions, outputs first; or groups of them. A group's
            `stacked` (default 1) is the number of maps that are stacked along the outputs of each
            kernel: every map is orthogonalised by itself.
        lr: Learning rate.
        momentum: Decay of the moving average of gradients.
        nesterov: Use Nesterov momentum.
        weight_decay: Decoupled, multiplied by the learning rate.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.0,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, "stacked": 1} | options)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)  # kernels of one shape are orthogonalised in one batch
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update parameters of one shape."""
        directions = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
            directions.append(ahead.flatten(1).unflatten(0, (group["stacked"], -1)))
        orthogonal = orthogonalize(torch.cat(directions)).to(parameters[0].dtype)
        scale = UPDATE_RMS * max(orthogonal.shape[1:]) ** 0.5
        updates = orthogonal.unflatten(0, (-1, group["stacked"]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices with the same singular vectors and singular values of about 1.

    Singular values of at least 1/500 of the matrix's Frobenius norm end between 0.68 and 1.21,
    smaller ones below. Computed in bfloat16 whatever the precision of training, as its authors do.

    Args:
        matrices: `[N, rows, columns]`.

    Returns:
        `[N, rows, columns]` bfloat16.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
