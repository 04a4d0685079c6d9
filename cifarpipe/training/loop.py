"""The train loop: from a network and its recipe to weights and a history."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Recipe
from cifarpipe.networks.devices import autocast
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.store.prepared import Split
from cifarpipe.training.averaging import AveragedNetwork
from cifarpipe.training.batches import AugmentedBatches
from cifarpipe.training.execution import Execution
from cifarpipe.training.optim import PlateauFactor, make_optimizer, schedule_factor
from cifarpipe.training.resume import ResumeStore

if TYPE_CHECKING:
    import pandas as pd

EVAL_BATCH = 500


@dataclass(frozen=True)
class Epoch:
    """One row of the history; losses in nats, the rate as it was at the epoch's end."""

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    lr: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """What the best epoch has most of: accuracy, and where that is equal, a low loss."""
        return self.val_acc, -self.val_loss

    def line(self, model: str) -> str:
        """Return the row as one line of the log."""
        return (
            f"{model}: Epoch: {self.epoch} | Train Acc: {self.train_acc:.4f}, "
            f"Val Acc: {self.val_acc:.4f}, Time: {self.seconds:.1f}, lr: {self.lr:.6f}"
        )


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind."""

    weights: dict[str, Tensor]
    """Of the kept epoch, on the CPU."""
    kept_epoch: int
    val_accuracy: float | None
    """At the kept epoch; none where nothing is held out."""
    history: "pd.DataFrame"
    """A row per epoch, columns as the fields of `Epoch`; NaN for val where nothing is held out."""


class State:
    """All that a run changes from epoch to epoch: what a killed one goes on from."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, recipe)
        self.plateau = PlateauFactor(recipe.plateau) if recipe.plateau else None
        self.averaged = AveragedNetwork(model, recipe.ema) if recipe.ema else None
        self.rows: list[Epoch] = []
        self.kept: dict[str, Tensor] = {}
        self.kept_epoch = 0

    @property
    def candidate(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.averaged.module if self.averaged else self.model

    def finish(self, row: Epoch, keep: str) -> None:
        """Take in an epoch that has ended."""
        best = self.rows[self.kept_epoch - 1] if self.rows else None
        if keep == "last" or best is None or row.rank > best.rank:
            self.kept_epoch = row.epoch
            self.kept = {name: t.cpu().clone() for name, t in self.candidate.state_dict().items()}
        self.rows.append(row)
        if self.plateau:
            self.plateau.update(row.val_loss)

    def history(self) -> "pd.DataFrame":
        """Return a row per epoch, columns as the fields of `Epoch`."""
        import pandas as pd  # a while, and no batch waits for it

        return pd.DataFrame([asdict(row) for row in self.rows])

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as values that `torch.save` can write."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau and self.plateau.state_dict(),
            "averaged": self.averaged and self.averaged.state_dict(),
            "rows": [asdict(row) for row in self.rows],
            "kept": self.kept,
            "kept_epoch": self.kept_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` was taken from."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.plateau:
            self.plateau.load_state_dict(state["plateau"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.rows = [Epoch(**row) for row in state["rows"]]
        self.kept, self.kept_epoch = state["kept"], state["kept_epoch"]


def train(
    name: str,
    model: nn.Module,
    recipe: Recipe,
    *,
    train_split: Split,
    val_split: Split,
    mean: list[float],
    std: list[float],
    classes: int,
    peak_lr: float,
    seed: int,
    keep: str,
    execution: Execution,
    resume: ResumeStore | None = None,
    tell: Callable[["pd.DataFrame"], None] | None = None,
) -> Trained:
    """Train `model` in place.

    All randomness of an epoch is a function of (seed, epoch). The log gets a line per epoch, and a
    terminal a progress bar.

    Args:
        name: Stands before each line of the log.
        model: Network with fresh weights.
        recipe: How to train it.
        train_split: Images to learn from.
        val_split: Held-out images; they choose the kept epoch and drive `plateau`. May be empty.
        mean: Of each channel, in 0 … 1.
        std: Of each channel, in 0 … 1.
        classes: How many there are.
        peak_lr: The highest learning rate.
        seed: Of all draws but the fresh weights.
        keep: `best` on validation or `last`.
        execution: On which device and how its steps are computed.
        resume: Where a run like this one may have left its state, and where to leave it.
        tell: Called with the history so far after each epoch, and where a run goes on.

    Raises:
        UserError: The loss is no longer finite.
    """
    device, world = execution.device, execution.world
    model = execution.place(model)
    network = execution.stepper(model)
    state = State(model, recipe)
    if resume and (saved := resume.load()):
        state.load_state_dict(saved)
        if world.leads:
            tqdm.write(f"{name}: going on after epoch {len(state.rows)}, from {resume.folder}")
        if tell:
            tell(state.history())
    means, stds = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    size = train_split.images.shape[1]
    augmentation = Augmentation(
        recipe.augment, mean=means, std=stds, image_size=size, classes=classes, seed=seed
    )
    batches = AugmentedBatches(
        ImageStore(train_split.images, device),
        train_split.labels,
        augmentation,
        batch_size=recipe.batch_size,
        seed=seed,
        world=world,
    )
    validation = Validation(val_split, execution, means, stds)
    steps = len(batches)

    # disable=None: a bar on a terminal, nothing in a log.
    hidden = None if world.leads else True
    with tqdm(
        total=recipe.epochs * steps,
        initial=len(state.rows) * steps,
        desc=name,
        unit=" steps",
        disable=hidden,
        leave=False,
    ) as bar:
        for epoch in range(len(state.rows) + 1, recipe.epochs + 1):
            start = time.perf_counter()
            seed_dropout(seed, epoch, world.rank)
            losses = torch.zeros(steps, device=device)
            hits = torch.zeros((), device=device)
            model.train()
            for step, batch in enumerate(batches.epoch(epoch)):
                done = (epoch - 1 + (step + 1) / steps) / recipe.epochs
                lr = peak_lr * schedule_factor(recipe.schedule, done, recipe.warmup)
                lr *= state.plateau.factor if state.plateau else 1.0
                for group in state.optimizer.param_groups:
                    group["lr"] = lr
                with autocast(device, execution.precision):
                    logits = network(batch.inputs).float()
                smoothing = recipe.label_smoothing
                loss = F.cross_entropy(
                    logits, batch.targets, label_smoothing=smoothing, reduction="sum"
                )
                state.optimizer.zero_grad()
                (loss * batch.share.scale).backward()
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                state.optimizer.step()
                if state.averaged:
                    state.averaged.update(model)
                losses[step] = loss.detach()
                hits += (logits.argmax(1) == batch.labels).sum()
                # A GPU, and other processes, are asked once an epoch, so as not to wait for them.
                if device.type == "cpu" and world.size == 1:
                    _check_finite(name, losses[step : step + 1], epoch, step, lr)
                bar.update()
            losses, hits = world.total(losses), world.total(hits)
            _check_finite(name, losses, epoch, 0, lr)
            train_loss = losses.double().sum().item() / len(train_split)
            train_acc = hits.item() / len(train_split)
            val_loss, val_acc = validation.measure(state.candidate)
            seconds = time.perf_counter() - start
            row = Epoch(epoch, train_loss, train_acc, val_loss, val_acc, lr, seconds)
            state.finish(row, keep)
            if world.leads:
                tqdm.write(row.line(name))
            if resume:
                resume.save(epoch, state.state_dict())
            if tell:
                tell(state.history())
    val_accuracy = state.rows[state.kept_epoch - 1].val_acc if len(val_split) else None
    return Trained(state.kept, state.kept_epoch, val_accuracy, state.history())


def seed_dropout(seed: int, epoch: int, rank: int) -> None:
    """Seed what the network draws by itself, as a function of the epoch and the process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


class Validation:
    """Measures a network on the held-out images, together with the other processes."""

    def __init__(self, split: Split, execution: Execution, mean: Tensor, std: Tensor) -> None:
        self.execution, self.mean, self.std = execution, mean, std
        self.images = ImageStore(split.images, execution.device)
        self.mine = np.arange(execution.world.rank, len(split), execution.world.size)
        self.labels = torch.from_numpy(split.labels[self.mine]).to(execution.device)
        self.count = len(split)

    def measure(self, model: nn.Module) -> tuple[float, float]:
        """Return mean cross-entropy (no smoothing) and accuracy; NaN where there are no images."""
        if not self.count:
            return float("nan"), float("nan")
        sums = torch.zeros(2, device=self.execution.device, dtype=torch.float64)
        if len(self.labels):
            logits = compute_logits(
                model,
                self.images,
                self.mine,
                mean=self.mean,
                std=self.std,
                batch_size=EVAL_BATCH,
                precision=self.execution.precision,
            )
            sums[0] = F.cross_entropy(logits.double(), self.labels, reduction="sum")
            sums[1] = (logits.argmax(1) == self.labels).sum()
        loss, accuracy = (self.execution.world.total(sums) / self.count).tolist()
        return loss, accuracy


def _check_finite(name: str, losses: Tensor, epoch: int, first_step: int, lr: float) -> None:
    finite = torch.isfinite(losses)
    if not finite.all():
        step = first_step + int((~finite).nonzero()[0, 0]) + 1
        raise UserError(
            f"{name}: the loss is not finite in epoch {epoch}, step {step}, at rate {lr:.6g}.\n"
            f"Nothing was written. Lower `models.{name}.lr_scale` or `lr`, lengthen `warmup`, or "
            f"set `clip_norm`."
        )
