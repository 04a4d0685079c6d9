"""Optimizers, and the learning rate over a run."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cifarpipe.config.schema import SGD, Plateau, Recipe
from cifarpipe.config.schema import Muon as MuonOptions
from cifarpipe.training.muon import Muon, Together

TRIANGLE_KNEE = 0.8  # of the run; there the rate has fallen to TRIANGLE_KNEE_RATE of its peak
TRIANGLE_KNEE_RATE = 1 / 20  # both as in locuslab/convmixer-cifar10's train.py
ONECYCLE_START = 1 / 25  # torch.optim.lr_scheduler.OneCycleLR's div_factor
ONECYCLE_END = 1 / 25e4  # its div_factor × final_div_factor


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer | Together:
    """Return the recipe's optimizer of all parameters of `model`; the loop sets its rate."""
    options = recipe.optimizer
    groups = parameter_groups(model, options.weight_decay, options.decay_on)
    if isinstance(options, SGD):
        return torch.optim.SGD(
            groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov, fused=True
        )
    if isinstance(options, MuonOptions):
        inner = inner_kernels(model)
        muon = Muon(
            [{"params": kernels, "stacked": stacked} for stacked, kernels in inner.items()],
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=options.weight_decay,
        )
        taken = {id(kernel) for kernels in inner.values() for kernel in kernels}
        for group in groups:
            group["params"] = [one for one in group["params"] if id(one) not in taken]
        groups = [group for group in groups if group["params"]]
        return Together(muon, torch.optim.AdamW(groups, betas=options.betas, fused=True))
    return torch.optim.AdamW(groups, betas=options.betas, fused=True)


def inner_kernels(model: nn.Module) -> dict[int, list[Tensor]]:
    """Return the kernels between the first and the last layer, but for grouped convolutions'.

    Layers come in the order in which the model names them.

    Returns:
        Kernels by how many maps are stacked in each: as many as the layer's `stacked` says, else 1.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    kernels: dict[int, list[Tensor]] = {}
    for layer in layers[1:-1]:
        if not (isinstance(layer, nn.Conv2d) and layer.groups > 1):
            kernels.setdefault(getattr(layer, "stacked", 1), []).append(layer.weight)
    return kernels


def parameter_groups(model: nn.Module, weight_decay: float, decay_on: str) -> list[dict[str, Any]]:
    """Sort the parameters into those that decay and those that do not.

    With `decay_on: weights` only the kernels of convolutions and linear layers decay; biases, norms
    and what is no layer's weight (class token, positions) do not.
    """
    kernels = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in model.parameters():
        decays = decay_on == "all" or id(parameter) in kernels
        (decayed if decays else spared).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule_factor(schedule: str, progress: float, warmup: float) -> float:
    """Return the rate as a part of its peak.

    Args:
        schedule: `triangular`, `onecycle`, `cosine` or `plateau`; the last is flat after warm-up,
            and what lowers it is `PlateauFactor`.
        progress: How much of the run is done, 0 … 1.
        warmup: Part of the run in which the rate rises.
    """
    rising = progress < warmup
    part = progress / warmup if rising else (progress - warmup) / (1 - warmup)
    match schedule:
        case "onecycle" if rising:
            return _cosine(ONECYCLE_START, 1, part)
        case "onecycle":
            return _cosine(1, ONECYCLE_END, part)
        case _ if rising:
            return part
        case "cosine":
            return _cosine(1, 0, part)
        case "triangular":
            knee = max(TRIANGLE_KNEE, warmup)
            if progress < knee:
                return _line(1, TRIANGLE_KNEE_RATE, (progress - warmup) / (knee - warmup))
            start = TRIANGLE_KNEE_RATE if knee > warmup else 1
            return _line(start, 0, (progress - knee) / (1 - knee))
        case "plateau":
            return 1.0
    raise AssertionError(schedule)


class PlateauFactor:
    """Lowers the rate when the validation loss no longer falls.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau` with its default threshold of one part in 10⁴,
    but as a factor, so that it goes together with warm-up.
    """

    THRESHOLD = 1e-4

    def __init__(self, plateau: Plateau) -> None:
        self.plateau = plateau
        self.factor = 1.0
        self.best = math.inf
        self.stale_epochs = 0

    def update(self, val_loss: float) -> None:
        """Take in the validation loss of an epoch that has ended."""
        if val_loss < self.best * (1 - self.THRESHOLD):
            self.best, self.stale_epochs = val_loss, 0
            return
        self.stale_epochs += 1
        if self.stale_epochs > self.plateau.patience:
            self.factor *= self.plateau.factor
            self.stale_epochs = 0

    def state_dict(self) -> dict[str, float]:
        """Return what changes, as PyTorch's schedulers do."""
        return {"factor": self.factor, "best": self.best, "stale_epochs": self.stale_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` was taken from."""
        self.factor, self.best = state["factor"], state["best"]
        self.stale_epochs = state["stale_epochs"]


def _line(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
