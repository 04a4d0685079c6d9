"""The learning rate over a run."""

import math
from typing import Any

from cifarpipe.config.recipes import Plateau

TRIANGLE_KNEE = 0.8  # of the run; there the learning rate is TRIANGLE_KNEE_LR of its peak
TRIANGLE_KNEE_LR = 1 / 20  # both as in locuslab/convmixer-cifar10's train.py
ONECYCLE_START = 1 / 25  # torch.optim.lr_scheduler.OneCycleLR's div_factor
ONECYCLE_END = 1 / 25e4  # its div_factor × final_div_factor


def schedule_factor(schedule: str, progress: float, warmup: float) -> float:
    """Return the learning rate as a fraction of its peak.

    Args:
        schedule: `triangular`, `onecycle`, `cosine` or `plateau`; the last one is constant after
            warm-up, and `PlateauFactor` lowers it.
        progress: Fraction of the run that is done, 0 to 1.
        warmup: Fraction of the run in which the learning rate rises.
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
                return _line(1, TRIANGLE_KNEE_LR, (progress - warmup) / (knee - warmup))
            start = TRIANGLE_KNEE_LR if knee > warmup else 1
            return _line(start, 0, (progress - knee) / (1 - knee))
        case "plateau":
            return 1.0
    raise AssertionError(schedule)


class PlateauFactor:
    """Lowers the learning rate when the validation loss stops falling.

    Like `torch.optim.lr_scheduler.ReduceLROnPlateau` with its default relative threshold of 1e-4,
    but as a factor, so that it can be combined with warm-up.
    """

    THRESHOLD = 1e-4

    def __init__(self, plateau: Plateau) -> None:
        self.plateau = plateau
        self.factor = 1.0
        self.best = math.inf
        self.stale_epochs = 0

    def update(self, val_loss: float) -> None:
        """Take the validation loss of a finished epoch into account."""
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
        """Restore what `state_dict` returned."""
        self.factor, self.best = state["factor"], state["best"]
        self.stale_epochs = state["stale_epochs"]


def _line(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
