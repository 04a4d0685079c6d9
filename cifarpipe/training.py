"""The train loop: from a network and its recipe to weights and a history."""

import time
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.augment import augment
from cifarpipe.data.prepared import Split
from cifarpipe.devices import autocast
from cifarpipe.errors import UserError
from cifarpipe.inference import compute_logits
from cifarpipe.optim import PlateauFactor, make_optimizer, schedule_factor
from cifarpipe.params import Recipe

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

    def line(self, model: str) -> str:
        """Return the row as one line of the log."""
        return (
            f"{model}: Epoch: {self.epoch} | Train Acc: {self.train_acc:.4f}, "
            f"Val Acc: {self.val_acc:.4f}, Time: {self.seconds:.1f}, lr: {self.lr:.6f}"
        )


class Channels(TypedDict):
    """What images are normalised by: `[3]` each, in 0 … 1."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind."""

    weights: dict[str, Tensor]
    """Of the kept epoch, on the CPU."""
    kept_epoch: int
    val_accuracy: float | None
    """At the kept epoch; none where nothing is held out."""
    history: pd.DataFrame
    """A row per epoch, columns as the fields of `Epoch`; NaN for val where nothing is held out."""


def train(
    name: str,
    model: nn.Module,
    recipe: Recipe,
    *,
    train_split: Split,
    val_split: Split,
    mean: list[float],
    std: list[float],
    peak_lr: float,
    seed: int,
    keep: str,
    precision: str,
    device: torch.device,
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
        peak_lr: The highest learning rate.
        seed: Of all draws but the fresh weights.
        keep: `best` on validation or `last`.
        precision: `bf16` or `fp32`.
        device: On which everything happens.

    Raises:
        UserError: The loss is no longer finite.
    """
    model.to(device)
    images, labels = _to_device(train_split, device)
    val_images, val_labels = _to_device(val_split, device)
    channels = Channels(
        mean=torch.tensor(mean, device=device), std=torch.tensor(std, device=device)
    )
    optimizer = make_optimizer(model, recipe)
    plateau = PlateauFactor(recipe.plateau) if recipe.plateau else None
    steps = -(-len(labels) // recipe.batch_size)
    rows: list[Epoch] = []
    kept: dict[str, Tensor] = {}
    kept_epoch, kept_rank = 0, (-1.0, 0.0)

    total = recipe.epochs * steps
    # disable=None: a bar on a terminal, nothing in a log.
    with tqdm(total=total, desc=name, unit=" steps", disable=None, leave=False) as bar:
        for epoch in range(1, recipe.epochs + 1):
            start = time.perf_counter()
            generator = _seed_epoch(seed, epoch, device)
            order = torch.randperm(len(labels), generator=generator, device=device)
            losses = torch.zeros(steps, device=device)
            correct = torch.zeros((), device=device, dtype=torch.int64)
            model.train()
            for step, batch in enumerate(order.split(recipe.batch_size)):
                done = (epoch - 1 + (step + 1) / steps) / recipe.epochs
                lr = peak_lr * schedule_factor(recipe.schedule, done, recipe.warmup)
                lr *= plateau.factor if plateau else 1.0
                for group in optimizer.param_groups:
                    group["lr"] = lr
                inputs = augment(images[batch], recipe.augment, generator=generator, **channels)
                target = labels[batch]
                with autocast(device, precision):
                    logits = model(inputs).float()
                loss = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                losses[step] = loss.detach() * len(batch)
                correct += (logits.argmax(1) == target).sum()
                if device.type == "cpu":  # a GPU is asked once an epoch, so as not to wait for it
                    _check_finite(name, losses[step : step + 1], epoch, step, lr)
                bar.update()
            _check_finite(name, losses, epoch, 0, lr)
            train_loss, train_acc = losses.sum().item() / len(labels), correct.item() / len(labels)
            val_loss, val_acc = _validate(model, val_images, val_labels, precision, channels)
            seconds = time.perf_counter() - start
            row = Epoch(epoch, train_loss, train_acc, val_loss, val_acc, lr, seconds)
            rows.append(row)
            tqdm.write(row.line(name))
            if plateau:
                plateau.update(val_loss)
            if keep == "last" or (val_acc, -val_loss) > kept_rank:
                kept_rank, kept_epoch = (val_acc, -val_loss), epoch
                kept = {key: value.cpu().clone() for key, value in model.state_dict().items()}
    val_accuracy = rows[kept_epoch - 1].val_acc if len(val_labels) else None
    return Trained(kept, kept_epoch, val_accuracy, pd.DataFrame([asdict(row) for row in rows]))


def _to_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copy a split from its memory map: images stay uint8 `[N, H, W, 3]`."""
    images, labels = np.array(split.images), np.array(split.labels)
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def _seed_epoch(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Return the generator of an epoch's order and augmentation, and seed what dropout draws."""
    ours, theirs = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    torch.manual_seed(int(theirs))
    return torch.Generator(device).manual_seed(int(ours))


def _validate(
    model: nn.Module, images: Tensor, labels: Tensor, precision: str, channels: Channels
) -> tuple[float, float]:
    """Return mean cross-entropy (no smoothing) and accuracy; NaN where there are no images."""
    if not len(labels):
        return float("nan"), float("nan")
    logits = compute_logits(model, images, batch_size=EVAL_BATCH, precision=precision, **channels)
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).sum().item() / len(labels)


def _check_finite(name: str, losses: Tensor, epoch: int, first_step: int, lr: float) -> None:
    finite = torch.isfinite(losses)
    if not finite.all():
        step = first_step + int((~finite).nonzero()[0, 0]) + 1
        raise UserError(
            f"{name}: the loss is not finite in epoch {epoch}, step {step}, at rate {lr:.6g}.\n"
            f"Nothing was written. Lower `models.{name}.lr_scale` or `lr`, lengthen `warmup`, or "
            f"set `clip_norm`."
        )
