"""Muon: steps that turn all directions of a matrix by as much, whatever the gradient's size there.

Keller Jordan, https://kellerjordan.github.io/posts/muon; the length of a step as in
arXiv:2502.16982, so that rates and decays of AdamW fit. `torch.optim.Muon` is the same for
matrices; this one takes a convolution's kernel as the matrix from all its inputs to its outputs.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 5  # of the Newton-Schulz iteration
# Of its polynomial a x + b x³ + c x⁵: so steep at 0 that few steps lift small singular values.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LENGTH = 0.2  # root mean square of a step at rate 1, which is about AdamW's
EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with decoupled weight decay.

    Args:
        params: Kernels of two dimensions or more, the first of which counts outputs; or groups of
            them, whose `stacked` (1) says how many maps lie one below the other in each kernel:
            each map is turned by itself.
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
        """Change all parameters that have a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)  # they are orthogonalised together
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._step(parameters, group)

    def _step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Change parameters of one shape."""
        directions = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
            directions.append(ahead.flatten(1).unflatten(0, (group["stacked"], -1)))
        turned = orthogonalize(torch.cat(directions)).to(parameters[0].dtype)
        length = LENGTH * max(turned.shape[1:]) ** 0.5
        changes = turned.unflatten(0, (-1, group["stacked"]))
        for parameter, change in zip(parameters, changes, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(change.reshape(parameter.shape), alpha=-group["lr"] * length)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices of the same directions with singular values of about 1.

    Values of at least 1/500 of the matrix's Frobenius norm end between 0.68 and 1.21, smaller ones
    below. It computes in bfloat16 whatever the training does, as its authors do.

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


class Together:
    """Optimizers of different parameters as one, as far as a training loop needs one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All parts' groups."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Change all parameters."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what changes, of each part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` was taken from."""
        for part, its_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(its_state)
