"""The state of a run: everything that changes from epoch to epoch."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cifarpipe.config.recipes import Recipe
from cifarpipe.training.averaging import AveragedNetwork
from cifarpipe.training.optimizers import make_optimizer, place_learning_rate, state_tensors
from cifarpipe.training.schedules import PlateauFactor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Epoch:
    """One row of the history: losses in nats, the learning rate at the epoch's end.

    `seconds` are all that has passed since the last row, the saving of its state included.
    """

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    lr: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """The best epoch has the highest: by accuracy, and among equals by low loss."""
        return self.val_acc, -self.val_loss

    def log_line(self, model: str) -> str:
        """Return the row as a line of the log; without validation images, without Val Acc."""
        validated = "" if math.isnan(self.val_acc) else f"Val Acc: {self.val_acc:.4f}, "
        return (
            f"{model}: Epoch: {self.epoch} | Train Acc: {self.train_acc:.4f}, {validated}"
            f"Time: {self.seconds:.1f}, lr: {self.lr:.6f}"
        )


class TrainingState:
    """Network, optimizer, history and the weights kept so far: what a killed run resumes from.

    Args:
        model: With its initial weights, on the device that computes.
        recipe: Optimizer, schedule and averaging.
        precision: Of the run; see `make_optimizer`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, precision: str = "fp32") -> None:
        self.model = model
        self.optimizer = make_optimizer(model, recipe, precision)
        self.plateau = PlateauFactor(recipe.plateau) if recipe.plateau else None
        self.averaged = AveragedNetwork(model, recipe.ema) if recipe.ema else None
        self.rows: list[Epoch] = []
        self.kept_weights: dict[str, Tensor] = {}
        self.kept_epoch = 0
        self.started = False
        """Whether a step was made, which creates the optimizer's state."""
        self.fell_back = False
        """Whether steps are eager although they should be compiled or replayed as a graph."""

    @property
    def candidate(self) -> nn.Module:
        """The network that is validated and may be kept: the averaged one if there is one."""
        return self.averaged.module if self.averaged else self.model

    def tensors(self) -> list[Tensor]:
        """Return everything that a step changes in place; all of it once `started`."""
        networks = [self.model, *([self.averaged.module] if self.averaged else [])]
        weights = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        return [*weights, *state_tensors(self.optimizer)]

    @property
    def kept(self) -> Epoch:
        """The history's row of the kept weights."""
        return self.rows[self.kept_epoch - 1]

    def finish_epoch(self, row: Epoch, keep: str) -> None:
        """Record a finished epoch and keep its weights if they are the ones to keep.

        Args:
            row: Its row of the history.
            keep: `best` on validation or `last`.
        """
        if keep == "last" or not self.rows or row.rank > self.kept.rank:
            self.kept_epoch = row.epoch
            weights = self.candidate.state_dict()
            self.kept_weights = {name: t.to("cpu", copy=True) for name, t in weights.items()}
        self.rows.append(row)
        if self.plateau:
            self.plateau.update(row.val_loss)

    def history(self) -> "pd.DataFrame":
        """Return a row per epoch: the fields of `Epoch`, and `kept`, 1 for the kept epoch."""
        import pandas as pd  # slow to import, and the first batch need not wait for it

        rows = [asdict(row) | {"kept": int(row.epoch == self.kept_epoch)} for row in self.rows]
        return pd.DataFrame(rows)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as values that `torch.save` can write."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau and self.plateau.state_dict(),
            "averaged": self.averaged and self.averaged.state_dict(),
            "rows": [asdict(row) for row in self.rows],
            "kept_weights": self.kept_weights,
            "kept_epoch": self.kept_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        place_learning_rate(self.optimizer, next(self.model.parameters()).device)
        if self.plateau:
            self.plateau.load_state_dict(state["plateau"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.rows = [Epoch(**row) for row in state["rows"]]
        self.kept_weights, self.kept_epoch = state["kept_weights"], state["kept_epoch"]
        self.started = True
