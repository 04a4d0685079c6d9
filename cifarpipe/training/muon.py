"""Muon: momentum whose update is orthogonalised, so that all directions of a matrix change alike.

Keller Jordan, https://kellerjordan.github.io/posts/muon; the update's scale as in arXiv:2502.16982,
so that learning rates and weight decays of AdamW fit. `torch.optim.Muon` computes the same for
matrices; this one treats a convolution's kernel as the matrix from all its inputs to its outputs.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

STEPS = 5  # of the Newton-Schulz iteration
# Of its polynomial a x + b x³ + c x⁵, steep at 0 so that few steps lift small singular values.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
UPDATE_RMS = 0.2  # root mean square of an update at learning rate 1, about that of AdamW
EPSILON = 1e-7
# Columns per row from which iterating on the Gram matrix saves time on a CPU, in float32.
GRAM_FROM = 2
# In float32 on a CPU, matrices are orthogonalised a few at a time, to stay in the cache.
BYTES_AT_A_TIME = 2**20


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum with decoupled weight decay.

    Args:
        params: Kernels of two or more dimensions, outputs first; or groups of them. A group's
            `stacked` (default 1) is the number of maps that are stacked along the outputs of each
            kernel: every map is orthogonalised by itself.
        lr: Learning rate, a number or a scalar tensor.
        momentum: Decay of the moving average of gradients.
        nesterov: Use Nesterov momentum.
        weight_decay: Decoupled, multiplied by the learning rate.
        keep_norm: Scale every kernel back to its former norm after each step.
        dtype: Of the orthogonalisation; see `orthogonalize`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float | Tensor = 0.0,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        keep_norm: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.keep_norm = keep_norm
        self.dtype = dtype
        options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, "stacked": 1} | options)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters: list[Tensor] = [each for each in group["params"] if each.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of a group. Its learning rate may be a tensor."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        averages = [self._average(parameter) for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        directions = averages
        if group["nesterov"]:
            directions = list(torch._foreach_lerp(gradients, averages, group["momentum"]))
        updates = orthogonal_updates(directions, group["stacked"], self.dtype)
        norms = torch._foreach_norm(parameters) if self.keep_norm else None
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_mul_(updates, group["lr"])
        torch._foreach_sub_(parameters, updates)
        if norms is not None:
            scales = torch._foreach_norm(parameters)
            torch._foreach_clamp_min_(scales, EPSILON)
            torch._foreach_mul_(parameters, torch._foreach_div(norms, scales))

    def _average(self, parameter: Tensor) -> Tensor:
        """Return the moving average of a parameter's gradients."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"]
        return average


def orthogonal_updates(directions: list[Tensor], stacked: int, dtype: torch.dtype) -> list[Tensor]:
    """Orthogonalise kernels, and scale them to the size of AdamW's updates.

    Args:
        directions: Kernels `[stacked × rows, …]`, each of any shape.
        stacked: Number of maps in each, which are orthogonalised separately.
        dtype: Of the iteration; see `orthogonalize`.

    Returns:
        Updates of the same shapes and types, in new memory.
    """
    updates = list(directions)
    by_shape = defaultdict(list)  # kernels of one shape are orthogonalised in one batch
    for i, direction in enumerate(directions):
        by_shape[direction.shape].append(i)
    for shape, indices in by_shape.items():
        matrices = [directions[i].flatten(1).unflatten(0, (stacked, -1)) for i in indices]
        orthogonal = orthogonalize(torch.cat(matrices), dtype)
        scale = UPDATE_RMS * max(orthogonal.shape[1:]) ** 0.5
        orthogonal = orthogonal.to(directions[indices[0]].dtype) * scale
        for i, update in zip(indices, orthogonal.unflatten(0, (-1, stacked)), strict=True):
            updates[i] = update.reshape(shape)
    return updates


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Return matrices with the same singular vectors and singular values of about 1.

    Singular values of at least 1/500 of the matrix's Frobenius norm end between 0.68 and 1.21; much
    smaller ones stay below.

    Args:
        matrices: `[N, rows, columns]`.
        dtype: float32, or bfloat16 as its authors have it, where the device computes that
            natively; elsewhere bfloat16 takes many times as long. On a CPU, float32 takes fewer
            operations for matrices that are far from square.

    Returns:
        `[N, rows, columns]`, float32 or bfloat16.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    rows, columns = x.shape[1:]
    in_fp32_on_cpu = x.device.type == "cpu" and dtype == torch.float32
    iterate = _iterate_gram if in_fp32_on_cpu and columns >= GRAM_FROM * rows else _iterate
    count = _at_a_time(4 * rows * columns) if in_fp32_on_cpu else len(x)
    parts = [iterate(_normalised(part.to(dtype))) for part in x.split(count)]
    orthogonal = torch.cat(parts) if len(parts) > 1 else parts[0]
    return orthogonal if wide else orthogonal.mT


def _at_a_time(size: int) -> int:
    """Return how many matrices of `size` bytes to compute at a time: a multiple of the threads."""
    threads = torch.get_num_threads()
    return threads * max(1, BYTES_AT_A_TIME // (threads * size))


def _normalised(x: Tensor) -> Tensor:
    return x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)


def _iterate(x: Tensor) -> Tensor:
    """Apply the polynomial to the singular values of `x`, `STEPS` times."""
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_gram(x: Tensor) -> Tensor:
    """Compute the same as `_iterate` by products of `rows` × `rows` matrices.

    Every iterate is a polynomial P of the Gram matrix G = x xᵀ, times x; the next Gram matrix is
    P G P. It needs float32, since small singular values are squared.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step < STEPS - 1:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x
