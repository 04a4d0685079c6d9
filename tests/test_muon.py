"""Muon compared with PyTorch's on matrices, and kernels compared with the same matrices."""

import pytest
import torch
from torch import Tensor, nn

from cifarpipe.training import muon
from cifarpipe.training.muon import Muon, orthogonalize

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 5), (6, 4)]


def gradients(step: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int = 6) -> None:
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (step + 1)
        for weight, gradient in zip(weights, gradients(step, SHAPES), strict=True):
            weight.grad = gradient.view(weight.shape)
        optimizer.step()


def initial_weights() -> list[nn.Parameter]:
    return [nn.Parameter(matrix) for matrix in gradients(99, SHAPES)]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_matrix_update_equals_pytorch(nesterov: bool, weight_decay: float) -> None:
    ours, theirs = initial_weights(), initial_weights()
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
    train(Muon(ours, dtype=torch.bfloat16, **options), ours)
    train(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options), theirs)
    for found, expected, first in zip(ours, theirs, initial_weights(), strict=True):
        assert (found - first).abs().mean() > 0.03
        # Each step is rounded to bfloat16.
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernel_update_equals_flattened_matrix_update(
    memory_format: torch.memory_format,
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, gradient = (torch.randn(6, 3, 2, 2, generator=generator) for _ in range(2))
    matrix = nn.Parameter(first.flatten(1).clone())
    kernel = nn.Parameter(first.clone(memory_format=memory_format))
    for weight in (matrix, kernel):
        optimizer = Muon([weight], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1)
        weight.grad = gradient.view(weight.shape).clone()
        optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_stacked_maps_are_orthogonalised_separately() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(4, 5, generator=generator) for _ in range(3)]
    scales = [1.0, 10.0, 0.1]  # together, the largest would dominate
    options = {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1}
    separate = [nn.Parameter(one.clone()) for one in maps]
    stacked = nn.Parameter(torch.cat(maps)[:, :, None, None])
    for weight, scale, one in zip(separate, scales, maps, strict=True):
        weight.grad = scale * one
    stacked.grad = torch.cat([weight.grad for weight in separate])[:, :, None, None]
    Muon(separate, **options).step()
    Muon([{"params": [stacked], "stacked": 3}], **options).step()
    torch.testing.assert_close(stacked[:, :, 0, 0], torch.cat([*separate]))


@pytest.mark.parametrize(("rows", "columns"), [(8, 30), (30, 8), (16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalisation_keeps_directions_with_unit_values(
    rows: int, columns: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    k = min(rows, columns)
    left = torch.linalg.qr(torch.randn(5, rows, k, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(5, columns, k, generator=generator)).Q
    values = torch.logspace(0, -2, k) * 7
    found = orthogonalize((left * values) @ right.mT, dtype)
    product = left.mT @ found.float() @ right  # diagonal if the directions are kept
    diagonal = product.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (product - torch.diag_embed(diagonal)).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(20, 90), (90, 20), (20, 40), (20, 39)])
def test_fp32_orthogonalisation_is_the_polynomial_of_singular_values(
    shape: tuple[int, int],
) -> None:
    """Also if they spread over seven orders of magnitude, as those of a momentum may."""
    left, _, right = torch.linalg.svd(torch.randn(2, *shape).double(), full_matrices=False)
    values = torch.logspace(0, -7, 20, dtype=torch.float64)
    values = values / values.norm()
    matrices = ((left * values) @ right).float()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = (left * values) @ right
    found = orthogonalize(matrices, torch.float32).double()
    assert (found - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("shape", [(20, 90), (90, 20), (30, 30)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_matrices_may_be_orthogonalised_a_few_at_a_time(
    shape: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = torch.randn(5, *shape)
    together = orthogonalize(matrices, torch.float32)
    monkeypatch.setattr(muon, "BYTES_AT_A_TIME", count * matrices[0].nbytes)
    torch.testing.assert_close(orthogonalize(matrices, torch.float32), together)


def test_kept_norm_changes_direction_alone() -> None:
    """The update is the usual one, scaled back to the kernel's norm."""
    generator = torch.Generator().manual_seed(0)
    first, gradient = (torch.randn(6, 3, 2, 2, generator=generator) for _ in range(2))
    free, kept = (nn.Parameter(first.clone()) for _ in range(2))
    options = {"lr": 0.3, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1}
    for weight, keep in ((free, False), (kept, True)):
        weight.grad = gradient.clone()
        Muon([weight], keep_norm=keep, **options).step()
    assert abs(free.norm() / first.norm() - 1) > 0.01
    torch.testing.assert_close(kept, free * first.norm() / free.norm())


def test_kept_norm_leaves_zero_kernel_finite() -> None:
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = torch.zeros(3, 2)
    Muon([weight], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.0, keep_norm=True).step()
    assert torch.equal(weight, torch.zeros(3, 2))


def test_parameter_without_gradient_is_unchanged() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    optimizer = Muon(weights, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1)
    weights[0].grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(weights[0], torch.full((2, 2), 0.99))  # weight decay only
    torch.testing.assert_close(weights[1], torch.ones(2, 2))
