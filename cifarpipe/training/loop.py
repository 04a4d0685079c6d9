"""The training loop: from a network and its recipe to weights and a history."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.augment.pipeline import Augmentation, check_sizes
from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.store.prepared import Prepared
from cifarpipe.training.batches import AugmentedBatches
from cifarpipe.training.execution import Execution
from cifarpipe.training.memory import check_memory
from cifarpipe.training.resume import ResumeStore
from cifarpipe.training.schedules import schedule_factor
from cifarpipe.training.state import Epoch, TrainingState
from cifarpipe.training.step import Step, explained_errors, make_step

EVAL_BATCH = {"cpu": 500, "cuda": 2500}  # validated at a time; of larger images than these fewer:
EVAL_SIZE = 32  # height and width


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
        UserError: The loss is not finite, an augmentation does not fit the images, a step needs
            more memory than there is, or the GPU or the compiler fails.
    """
    with explained_errors(run.name, run.recipe.batch_size), execution.own_stream():
        return _train(model, data, run, execution, resume, on_epoch_end)


def _train(
    model: nn.Module,
    data: Prepared,
    run: Run,
    execution: Execution,
    resume: ResumeStore | None,
    on_epoch_end: Callable[[str, TrainingState], None] | None,
) -> TrainingState:
    device, world, recipe = execution.device, execution.world, run.recipe
    mean, std = (torch.tensor(values, device=device) for values in (data.mean, data.std))
    batches = _make_batches(data, run, execution, mean, std)
    validation = Validation(data, execution, mean, std)
    model = execution.place(model)
    size = len(batches.shares[0])  # of this process's share
    check_memory(run.name, model, data.image_size, size, execution, recipe)
    network = world.wrap_ddp(model)
    state = TrainingState(model, recipe, execution.precision)
    train_step = make_step(run.name, state, network, recipe, execution, size=size)
    # From the main process: other machines may not have the file.
    saved = world.from_main(resume.load() if resume and world.is_main else None)
    if resume and saved:
        state.load_state_dict(saved)
        if world.is_main:
            tqdm.write(f"{run.name}: resuming after epoch {len(state.rows)}, from {resume.folder}")
        if on_epoch_end and world.is_main:
            on_epoch_end(run.name, state)
    with tqdm(
        total=recipe.epochs * len(batches),
        initial=len(state.rows) * len(batches),
        desc=run.name,
        unit=" steps",
        disable=None if world.is_main else True,  # None: shown on a terminal only
        leave=False,
    ) as bar:
        start = time.perf_counter()
        for epoch in range(len(state.rows) + 1, recipe.epochs + 1):
            train_loss, train_acc, lr = _run_epoch(
                epoch, state, batches, train_step, run, execution, bar
            )
            val_loss, val_acc = validation.measure(state.candidate)
            now = time.perf_counter()
            row = Epoch(epoch, train_loss, train_acc, val_loss, val_acc, lr, now - start)
            start = now
            state.finish_epoch(row, run.keep)
            if world.is_main:
                tqdm.write(row.log_line(run.name))
            if resume:
                resume.save(epoch, state.state_dict)
            if on_epoch_end and world.is_main:
                on_epoch_end(run.name, state)
    return state


def _run_epoch(
    epoch: int,
    state: TrainingState,
    batches: AugmentedBatches,
    train_step: Step,
    run: Run,
    execution: Execution,
    bar: "tqdm[NoReturn]",
) -> tuple[float, float, float]:
    """Train on every image once.

    Args:
        epoch: Counted from 1.
        state: Is updated.
        batches: Of this process.
        train_step: Updates the weights by a batch.
        run: Seed and learning rates.
        execution: Device and processes.
        bar: Is moved on by every step.

    Returns:
        Mean loss and accuracy, over all processes, and the last learning rate.

    Raises:
        UserError: A loss is not finite.
    """
    device, world, steps = execution.device, execution.world, len(batches)
    seed_dropout(run.seed, epoch, world.rank)
    losses = torch.zeros(steps, device=device)
    hits = torch.zeros((), device=device)

    def rate(step: int) -> float:
        return run.learning_rate(state, (epoch - 1 + (step + 1) / steps) / run.recipe.epochs)

    state.model.train()
    for step, batch in enumerate(batches.epoch(epoch)):
        losses[step], correct = train_step(batch, rate(step))
        hits += correct
        # Waiting for a GPU or other processes takes time: these are checked per epoch.
        if device.type == "cpu" and world.size == 1 and not losses[step].isfinite():
            break
        bar.update()
    losses, hits = world.all_reduce(losses), world.all_reduce(hits)
    check_finite(run.name, losses, epoch, rate)
    images = len(batches.labels)
    return losses.double().sum().item() / images, hits.item() / images, rate(steps - 1)


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
        larger = max(data.image_size / EVAL_SIZE, 1.0)
        self.batch_size = max(int(EVAL_BATCH[execution.device.type] / larger**2), 1)

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
                batch_size=self.batch_size,
                precision=self.execution.precision,
            )
            sums[0] = F.cross_entropy(logits.double(), self.labels, reduction="sum")
            sums[1] = (logits.argmax(1) == self.labels).sum()
        loss, accuracy = (self.execution.world.all_reduce(sums) / self.count).tolist()
        return loss, accuracy


def check_finite(
    name: str, losses: Tensor, epoch: int, learning_rate: Callable[[int], float]
) -> None:
    """Check the losses of an epoch.

    Args:
        name: Of the model.
        losses: `[steps]`; 0 for a step that was not computed.
        epoch: Counted from 1.
        learning_rate: Of a step, counted from 0.

    Raises:
        UserError: One is not finite.
    """
    finite = torch.isfinite(losses)
    if not finite.all():
        step = int((~finite).nonzero()[0, 0])
        where = f"{name}: the loss is not finite in epoch {epoch}, step {step + 1}"
        if epoch == 1 and step == 0:
            raise UserError(
                f"{where}, before the first update of the weights.\nThe learning rate is not the "
                f"cause: check the initial weights and the augmentation."
            )
        raise UserError(
            f"{where}, at learning rate {learning_rate(step):.6g}.\nNo weights were written. Lower "
            f"`models.{name}.lr_scale` or `lr`, increase `warmup`, or set `clip_norm`."
        )


def _make_batches(
    data: Prepared, run: Run, execution: Execution, mean: Tensor, std: Tensor
) -> AugmentedBatches:
    check_sizes(run.name, run.recipe.augment, data.image_size)
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
