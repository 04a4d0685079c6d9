"""Learning-rate schedules compared with PyTorch's and with published ones."""

import numpy as np
import pytest
import torch
from torch import nn

from cifarpipe.config.recipes import Plateau
from cifarpipe.training.schedules import PlateauFactor, schedule_factor

STEPS = 200
PROGRESS = np.arange(STEPS + 1) / STEPS


def factors(schedule: str, warmup: float) -> np.ndarray:
    return np.array([schedule_factor(schedule, progress, warmup) for progress in PROGRESS])


def unit_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def test_triangular_equals_published_interpolation() -> None:
    # locuslab/convmixer-cifar10: np.interp over [0, 2E/5, 4E/5, E] → [0, max, max / 20, 0].
    published = np.interp(PROGRESS, [0, 0.4, 0.8, 1], [0, 1, 1 / 20, 0])
    np.testing.assert_allclose(factors("triangular", 0.4), published, atol=1e-12)


def test_onecycle_equals_pytorch() -> None:
    optimizer = unit_optimizer()
    # PyTorch counts steps from 0 to total - 1 and has its peak one step early.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS + 1, pct_start=(0.3 * STEPS + 1) / (STEPS + 1)
    )
    expected = []
    for _ in range(STEPS + 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) <= STEPS:
            scheduler.step()
    np.testing.assert_allclose(factors("onecycle", 0.3), expected, atol=1e-6)


def test_cosine_equals_pytorch_after_linear_warmup() -> None:
    found = factors("cosine", 0.2)
    rise = int(0.2 * STEPS)
    np.testing.assert_allclose(found[: rise + 1], np.linspace(0, 1, rise + 1), atol=1e-12)
    optimizer = unit_optimizer()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - rise)
    expected = []
    for _ in range(STEPS - rise + 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(found[rise:], expected, atol=1e-9)


@pytest.mark.parametrize("schedule", ["triangular", "onecycle", "cosine", "plateau"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.85])
def test_schedule_has_one_peak_after_warmup(schedule: str, warmup: float) -> None:
    found = factors(schedule, warmup)
    peak = found.argmax()
    assert found.max() == pytest.approx(1.0)
    assert PROGRESS[peak] == pytest.approx(warmup, abs=1 / STEPS)
    assert (np.diff(found[: peak + 1]) > 0).all()
    assert (np.diff(found[peak:]) <= 1e-12).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_factor_equals_pytorch(patience: int) -> None:
    # The second loss is exactly at the threshold, which is no improvement.
    losses = [
        2.0,
        2.0 * (1 - 1e-4),
        1.5,
        1.6,
        1.5,
        1.4999,
        1.45,
        1.46,
        1.47,
        1.48,
        1.5,
        1.4,
        1.41,
        1.42,
        1.43,
        1.44,
    ]
    losses += [1.5] * 9  # lowers the factor several times
    optimizer = unit_optimizer()
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience, eps=0.0
    )
    plateau = PlateauFactor(Plateau(factor=0.3, patience=patience))
    for loss in losses:
        plateau.update(loss)
        reference.step(loss)
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.factor < 1


def test_plateau_is_restored() -> None:
    first, second = (PlateauFactor(Plateau(factor=0.5, patience=1)) for _ in range(2))
    for loss in (1.0, 2.0, 2.0, 2.0):
        first.update(loss)
    assert (first.factor, first.best, first.stale_epochs) == (0.5, 1.0, 1)
    second.load_state_dict(first.state_dict())
    for plateau in (first, second):
        plateau.update(1.5)
        assert plateau.factor == 0.25
