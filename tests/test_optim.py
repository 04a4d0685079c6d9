"""Schedules against PyTorch's own and published ones; which parameters decay."""

import numpy as np
import pytest
import torch
from torch import nn

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import ModelEntry, Params, Plateau
from cifarpipe.models.build import build_model
from cifarpipe.training.optim import (
    PlateauFactor,
    make_optimizer,
    parameter_groups,
    schedule_factor,
)

STEPS = 200
PROGRESS = np.arange(STEPS + 1) / STEPS


def factors(schedule: str, warmup: float) -> np.ndarray:
    return np.array([schedule_factor(schedule, p, warmup) for p in PROGRESS])


def test_triangular_is_the_published_interpolation() -> None:
    # locuslab/convmixer-cifar10: np.interp over [0, 2E/5, 4E/5, E] → [0, max, max / 20, 0].
    published = np.interp(PROGRESS, [0, 0.4, 0.8, 1], [0, 1, 1 / 20, 0])
    np.testing.assert_allclose(factors("triangular", 0.4), published, atol=1e-12)


def test_onecycle_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    # PyTorch counts steps from 0 to total - 1 and puts the peak one step early.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS + 1, pct_start=(0.3 * STEPS + 1) / (STEPS + 1)
    )
    theirs = []
    for _ in range(STEPS + 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(theirs) <= STEPS:
            scheduler.step()
    np.testing.assert_allclose(factors("onecycle", 0.3), theirs, atol=1e-6)


def test_cosine_falls_as_pytorchs_after_a_straight_rise() -> None:
    ours = factors("cosine", 0.2)
    rise = int(0.2 * STEPS)
    np.testing.assert_allclose(ours[: rise + 1], np.linspace(0, 1, rise + 1), atol=1e-12)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - rise)
    theirs = []
    for _ in range(STEPS - rise + 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(ours[rise:], theirs, atol=1e-9)


@pytest.mark.parametrize("schedule", ["triangular", "onecycle", "cosine", "plateau"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.85])
def test_every_schedule_peaks_once_at_the_end_of_its_warmup(schedule: str, warmup: float) -> None:
    ours = factors(schedule, warmup)
    peak = ours.argmax()
    assert ours.max() == pytest.approx(1.0)
    assert PROGRESS[peak] == pytest.approx(warmup, abs=1 / STEPS)
    assert (np.diff(ours[: peak + 1]) > 0).all()
    assert (np.diff(ours[peak:]) <= 1e-12).all()
    assert (ours >= 0).all()


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_lowers_when_pytorchs_does(patience: int) -> None:
    losses = [2.0, 1.5, 1.6, 1.5, 1.4999, 1.45, 1.46, 1.47, 1.48, 1.5, 1.4, 1.41, 1.42, 1.43, 1.44]
    losses += [1.5] * 9  # it is lowered again and again
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience, eps=0.0
    )
    ours = PlateauFactor(Plateau(factor=0.3, patience=patience))
    for loss in losses:
        ours.update(loss)
        reference.step(loss)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.factor < 1


@pytest.mark.parametrize("name", load_params("params.demo.yaml").models)
def test_only_kernels_decay(name: str, demo_params: Params) -> None:
    model = build_model(demo_params.models[name], num_classes=10, image_size=32)
    decayed, spared = parameter_groups(model, 0.05, "weights")
    assert decayed["weight_decay"] == 0.05
    assert spared["weight_decay"] == 0.0
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    spared_names = {names[id(parameter)] for parameter in spared["params"]}
    assert decayed_names | spared_names == set(names.values())
    assert not decayed_names & spared_names
    assert all(key.endswith("weight") for key in decayed_names)
    assert all(p.ndim >= 2 for p in decayed["params"])
    kernels = {k for k, p in model.named_parameters() if p.ndim >= 2} - {"class_token", "positions"}
    assert decayed_names == kernels


def test_all_decay_when_asked() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    (group,) = parameter_groups(model, 0.05, "all")
    assert len(group["params"]) == 4


@pytest.mark.parametrize(("name", "kind"), [("vit", "AdamW"), ("resnet18_ln", "SGD")])
def test_optimizer_is_the_one_asked_for(name: str, kind: str, demo_params: Params) -> None:
    entry = demo_params.models[name]
    optimizer = make_optimizer(build_model(entry, num_classes=10, image_size=32), entry)
    assert type(optimizer).__name__ == kind


def test_a_plateau_goes_on_from_its_state() -> None:
    first, second = (PlateauFactor(Plateau(factor=0.5, patience=1)) for _ in range(2))
    for loss in (1.0, 2.0, 2.0, 2.0):
        first.update(loss)
    assert (first.factor, first.best, first.stale_epochs) == (0.5, 1.0, 1)
    second.load_state_dict(first.state_dict())
    for each in (first, second):
        each.update(1.5)
        assert each.factor == 0.25


def with_optimizer(entry: ModelEntry, **options: object) -> ModelEntry:
    return entry.model_copy(update={"optimizer": entry.optimizer.model_copy(update=options)})


def test_adamw_has_the_recipes_options(demo_params: Params) -> None:
    entry = with_optimizer(
        demo_params.models["vit"], betas=(0.7, 0.8), weight_decay=0.25, decay_on="all"
    )
    optimizer = make_optimizer(nn.Linear(2, 2), entry)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.7, 0.8), 0.25)
    assert len(group["params"]) == 2


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_has_the_recipes_options(nesterov: bool, demo_params: Params) -> None:
    entry = with_optimizer(
        demo_params.models["resnet18_ln"],
        momentum=0.7, nesterov=nesterov, weight_decay=0.25, decay_on="weights",
    )  # fmt: skip
    optimizer = make_optimizer(nn.Linear(2, 2), entry)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.25, 0.0)
    for group in (decayed, spared):
        assert (group["momentum"], group["nesterov"], group["lr"]) == (0.7, nesterov, 0.0)
