"""Work to be timed: steps and epochs of the default models, here and in an ordinary loop."""

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from benchmarks import ordinary
from benchmarks.machine import (
    Machine,
    per_second,
)
from benchmarks.noise import CLASSES, SIZE, as_prepared, noise_split
from benchmarks.study import ROOT
from cifarpipe.config.architectures import ModelEntry
from cifarpipe.config.reader import load_params
from cifarpipe.config.recipes import Augment
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import pick_device
from cifarpipe.training.batches import Batch
from cifarpipe.training.cost import layer_table
from cifarpipe.training.distributed import Share, World
from cifarpipe.training.execution import Execution, plan_execution
from cifarpipe.training.loop import Run, check_finite, train
from cifarpipe.training.optimizers import hidden_kernels
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import make_step

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

BATCH = 128
LEARNING_RATE = 1e-4
EPOCH_HEAD = ["images/s", "here", "ordinary loop", "ratio", "an epoch of 50,000 images"]


def default_models(machine: Machine) -> dict[str, ModelEntry]:
    """Return the entries of the measured models, with equal batch sizes."""
    models = load_params(ROOT / machine.size.params).models
    names = machine.size.trained
    return {name: models[name].model_copy(update={"batch_size": BATCH}) for name in names}


def new_network(entry: ModelEntry) -> "Classifier":
    """Return an entry's network with new weights."""
    torch.manual_seed(0)
    return build_model(entry.architecture, num_classes=CLASSES, image_size=SIZE)


def macs_per_image(entry: ModelEntry) -> int:
    """Return the multiply-accumulates of a forward pass of one image."""
    return int(layer_table(new_network(entry), SIZE).macs.sum())


def plan(machine: Machine, entry: ModelEntry, precision: str = "auto") -> Execution:
    """Return how a run with the default epochs on all of CIFAR-10 is computed."""
    options = load_params(ROOT / machine.size.params).train.model_copy(
        update={"precision": precision}
    )
    macs = 45_000 * entry.epochs * macs_per_image(entry)
    return plan_execution(options, new_network(entry), macs, machine.device, World())


def how_computed(execution: Execution) -> str:
    """Return an execution in words."""
    how = [execution.precision]
    how += ["channels last"] * (execution.memory_format is torch.channels_last)
    how += ["compiled"] * execution.compiled
    how += ["graphed"] * execution.graphed
    return ", ".join(how)


def comparison(
    machine: Machine,
    images: int,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    *,
    places: int = 2,
) -> list[str]:
    """Time two ways of the same work.

    Args:
        machine: Where to measure.
        images: Of one call.
        ours: The work as this project does it.
        baseline: The work as an ordinary PyTorch loop does it.
        places: Decimal places of the ratio.

    Returns:
        Images per second of both, and their ratio.
    """
    seconds, baseline_seconds = machine.compare(ours, baseline)
    ratio = f"{baseline_seconds / seconds:.{places}f}"
    return [per_second(images, seconds), per_second(images, baseline_seconds), ratio]


def random_batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images and labels."""
    inputs = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    return inputs, torch.randint(CLASSES, (BATCH,), device=device)


def train_steps(entry: ModelEntry, execution: Execution, *, steps: int) -> Callable[[], None]:
    """Return a function that makes train steps on one batch, as `loop.train` makes them.

    Args:
        entry: Network and recipe.
        execution: How to compute.
        steps: Of one call.
    """
    with execution.own_stream():
        model = execution.place(new_network(entry)).train()
        state = TrainingState(model, entry, execution.precision)
        step = make_step("bench", state, model, entry, execution, size=BATCH)
        batch = Batch(*random_batch(execution.device), Share(0, BATCH, 1 / BATCH))
        losses = torch.zeros(steps, device=execution.device)
        hits = torch.zeros((), device=execution.device)

    @execution.own_stream()
    def work() -> None:
        for number in range(steps):
            losses[number], correct = step(batch, LEARNING_RATE)
            hits.add_(correct)
            if execution.device.type == "cpu" and not losses[number].isfinite():
                check_finite("bench", losses, 1, lambda _step: LEARNING_RATE)

    return work


def ordinary_steps(
    entry: ModelEntry, machine: Machine, *, steps: int, same_optimizer: bool
) -> Callable[[], None]:
    """Return a function that makes the steps of an ordinary loop on one batch, in fp32.

    Args:
        entry: Network and recipe.
        machine: Where to compute.
        steps: Of one call.
        same_optimizer: Use the recipe's optimizer as PyTorch has it; else AdamW, as most tutorials.
    """
    model = new_network(entry).to(machine.device).train()
    optimizer = plain_optimizer(model, entry if same_optimizer else None)
    batches = [random_batch(machine.device)] * steps
    return lambda: ordinary.train_epoch(model, batches, optimizer, machine.device) and None


def plain_optimizer(
    model: torch.nn.Module, entry: ModelEntry | None = None
) -> torch.optim.Optimizer | ordinary.PlainMuon:
    """Return the optimizer that most tutorials use, or a recipe's as PyTorch has it."""
    if entry is None or entry.optimizer.name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=False)
    if entry.optimizer.name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, fused=False)
    kernels = [kernel for some in hidden_kernels(model).values() for kernel in some]
    return ordinary.PlainMuon(model, kernels, LEARNING_RATE)


def epoch_seconds(entry: ModelEntry, name: str, execution: Execution, images: int) -> float:
    """Return the median seconds of an epoch of training; the first one is not counted."""
    plan = Run(name, entry, LEARNING_RATE, seed=0, keep="last")
    state = train(new_network(entry), as_prepared(noise_split(images)), plan, execution)
    return float(state.history().seconds[1:].median())


def epoch_row(machine: Machine, name: str, entry: ModelEntry) -> list[str]:
    """Return a model's row of `whole_epoch`."""
    count = machine.size.trained[name]
    epochs = machine.size.repeats + 1
    pick_device()
    recipe = entry.model_copy(update={"epochs": epochs})
    seconds = epoch_seconds(recipe, name, plan(machine, entry), count)
    split, augment = noise_split(count), entry.augment or Augment()
    transform = ordinary.transform(rotate=augment.rotate or 0.0, cutout=augment.cutout or 0)
    dataset = ordinary.ImageDataset(split.images, split.labels, transform)
    batches = ordinary.loader(dataset, BATCH, machine.device, shuffle=True)
    model = new_network(entry).to(machine.device)
    optimizer = plain_optimizer(model)
    ordinary.use_default_settings(machine.device)
    times = [
        machine.seconds(lambda: ordinary.train_epoch(model, batches, optimizer, machine.device))
        for _ in range(epochs)
    ]
    baseline_seconds = statistics.median(times[1:])
    return [
        f"`{name}`",
        per_second(count, seconds),
        per_second(count, baseline_seconds),
        f"{baseline_seconds / seconds:.2f}",
        f"{50_000 * seconds / count:,.1f} s",
    ]
