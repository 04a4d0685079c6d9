"""The training loop: from a network and its recipe to weights and a history."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.networks.precision import autocast
from cifarpipe.store.prepared import Prepared
from cifarpipe.training.batches import AugmentedBatches, Batch
from cifarpipe.training.execution import Execution
from cifarpipe.training.resume import ResumeStore
from cifarpipe.training.schedules import schedule_factor
from cifarpipe.training.state import Epoch, TrainingState

EVAL_BATCH = 500


@dataclass(frozen=True)
class Run:
    """What is to be trained, and how."""

    name: str
    """Of the model; starts each line of the log."""
    recipe: Recipe
    peak_lr: float
    """The highest learning rate."""
    seed: int
    """Of all draws except the initial weights."""
    keep: Literal["best", "last"]
    """Which epoch's weights to keep: the best on validation, or the last."""

    def learning_rate(self, state: TrainingState, done: float) -> float:
        """Return the learning rate after a fraction `done` of the run."""
        factor = schedule_factor(self.recipe.schedule, done, self.recipe.warmup)
        return self.peak_lr * factor * (state.plateau.factor if state.plateau else 1.0)


def train(
    model: nn.Module,
    data: Prepared,
    run: Run,
    execution: Execution,
    resume: ResumeStore | None = None,
    *,
    on_epoch_end: Callable[[str, TrainingState], None] | None = None,
) -> TrainingState:
    """Train `model` in place.

    All randomness of an epoch is a function of (seed, epoch). Every epoch prints a line; a terminal
    shows a progress bar.

    Args:
        model: With its initial weights.
        data: Trains on its train split; its validation split, which may be empty, selects the kept
            epoch and drives `plateau`.
        run: Recipe, learning rate and seed.
        execution: The device, and how steps are computed on it.
        resume: Where a killed run of the same fingerprint left its state, and where to save ours.
        on_epoch_end: Called in the main process with the model's name, after each epoch and when a
            run is resumed.

    Returns:
        The final state: `kept_weights` (on the CPU), `kept_epoch`, `history()`.

    Raises:
        UserError: The loss is not finite, or an augmentation does not fit the images.
    """
    device, world, recipe = execution.device, execution.world, run.recipe
    mean, std = (torch.tensor(values, device=device) for values in (data.mean, data.std))
    batches = _make_batches(data, run, execution, mean, std)
    validation = Validation(data, execution, mean, std)
    model = execution.place(model)
    forward = execution.compiled_forward(model)
    state = TrainingState(model, recipe)
    if resume and (saved := resume.load()):
        state.load_state_dict(saved)
        if world.is_main:
            tqdm.write(f"{run.name}: resuming after epoch {len(state.rows)}, from {resume.folder}")
        if on_epoch_end and world.is_main:
            on_epoch_end(run.name, state)
    steps = len(batches)
    with tqdm(
        total=recipe.epochs * steps,
        initial=len(state.rows) * steps,
        desc=run.name,
        unit=" steps",
        disable=None if world.is_main else True,  # None: shown on a terminal only
        leave=False,
    ) as bar:
        for epoch in range(len(state.rows) + 1, recipe.epochs + 1):
            start = time.perf_counter()
            seed_dropout(run.seed, epoch, world.rank)
            losses = torch.zeros(steps, device=device)
            hits = torch.zeros((), device=device)
            model.train()
            for step, batch in enumerate(batches.epoch(epoch)):
                lr = run.learning_rate(state, (epoch - 1 + (step + 1) / steps) / recipe.epochs)
                with autocast(device, execution.precision):
                    logits = forward(batch.inputs).float()
                losses[step] = optimize(state, logits, batch, recipe, lr)
                hits += (logits.argmax(1) == batch.labels).sum()
                # Waiting for a GPU or other processes takes time: these are checked per epoch.
                if device.type == "cpu" and world.size == 1:
                    check_finite(run.name, losses[step : step + 1], epoch, step, lr)
                bar.update()
            losses, hits = world.all_reduce(losses), world.all_reduce(hits)
            check_finite(run.name, losses, epoch, 0, lr)
            train_loss = losses.double().sum().item() / len(data.train)
            train_acc = hits.item() / len(data.train)
            val_loss, val_acc = validation.measure(state.candidate)
            seconds = time.perf_counter() - start
            row = Epoch(epoch, train_loss, train_acc, val_loss, val_acc, lr, seconds)
            state.finish_epoch(row, run.keep)
            if world.is_main:
                tqdm.write(row.log_line(run.name))
            if resume:
                resume.save(epoch, state.state_dict())
            if on_epoch_end and world.is_main:
                on_epoch_end(run.name, state)
    return state


def optimize(
    state: TrainingState, logits: Tensor, batch: Batch, recipe: Recipe, lr: float
) -> Tensor:
    """Update the weights once.

    Args:
        state: Holds the model and its optimizer.
        logits: `[B, classes]` float32 of the batch.
        batch: Targets, and this process's share of the whole batch.
        recipe: Label smoothing and clipping.
        lr: Learning rate of this step.

    Returns:
        The sum of this process's losses.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    smoothing = recipe.label_smoothing or 0.0
    loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing, reduction="sum")
    state.optimizer.zero_grad()
    (loss * batch.share.scale).backward()
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm)
    state.optimizer.step()
    if state.averaged:
        state.averaged.update(state.model)
    return loss.detach()


def seed_dropout(seed: int, epoch: int, rank: int) -> None:
    """Seed PyTorch's own generator, which dropout uses, for this epoch and process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


class Validation:
    """Measures a network on the validation split, shared among all processes."""

    def __init__(self, data: Prepared, execution: Execution, mean: Tensor, std: Tensor) -> None:
        split, world = data.val, execution.world
        self.execution, self.mean, self.std = execution, mean, std
        self.images = ImageStore(split.images, execution.device)
        self.ours = np.arange(world.rank, len(split), world.size)
        self.labels = torch.from_numpy(split.labels[self.ours]).to(execution.device)
        self.count = len(split)

    def measure(self, model: nn.Module) -> tuple[float, float]:
        """Return mean cross-entropy (without smoothing) and accuracy; NaN without images."""
        if not self.count:
            return float("nan"), float("nan")
        sums = torch.zeros(2, device=self.execution.device, dtype=torch.float64)
        if len(self.labels):
            logits = compute_logits(
                model,
                self.images,
                self.ours,
                mean=self.mean,
                std=self.std,
                batch_size=EVAL_BATCH,
                precision=self.execution.precision,
            )
            sums[0] = F.cross_entropy(logits.double(), self.labels, reduction="sum")
            sums[1] = (logits.argmax(1) == self.labels).sum()
        loss, accuracy = (self.execution.world.all_reduce(sums) / self.count).tolist()
        return loss, accuracy


def check_finite(name: str, losses: Tensor, epoch: int, first_step: int, lr: float) -> None:
    """Check the losses of consecutive steps.

    Raises:
        UserError: One is not finite.
    """
    finite = torch.isfinite(losses)
    if not finite.all():
        step = first_step + int((~finite).nonzero()[0, 0]) + 1
        raise UserError(
            f"{name}: the loss is not finite in epoch {epoch}, step {step}, at learning rate "
            f"{lr:.6g}.\nNothing was written. Lower `models.{name}.lr_scale` or `lr`, increase "
            f"`warmup`, or set `clip_norm`."
        )


def _make_batches(
    data: Prepared, run: Run, execution: Execution, mean: Tensor, std: Tensor
) -> AugmentedBatches:
    augmentation = Augmentation(
        run.recipe.augment,
        mean=mean,
        std=std,
        image_size=data.image_size,
        classes=len(data.classes),
        seed=run.seed,
    )
    return AugmentedBatches(
        ImageStore(data.train.images, execution.device),
        data.train.labels,
        augmentation,
        batch_size=run.recipe.batch_size,
        seed=run.seed,
        world=execution.world,
    )
