"""Sections of the benchmark on single train steps: their speed, their limits, what they gain."""

import os
import statistics
import tempfile
from dataclasses import replace

import torch

from benchmarks import ordinary
from benchmarks.machine import (
    Machine,
    bandwidth,
    peak,
    per_second,
    table,
)
from benchmarks.noise import SIZE, noise_split
from benchmarks.workloads import (
    BATCH,
    LEARNING_RATE,
    comparison,
    default_models,
    how_computed,
    macs_per_image,
    new_network,
    ordinary_steps,
    plan,
    random_batch,
    train_steps,
)
from cifarpipe.config.architectures import ModelEntry
from cifarpipe.networks.devices import memory_format
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.training.batches import Batch
from cifarpipe.training.distributed import Share
from cifarpipe.training.execution import Execution
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import EagerStep

# How often an activation crosses memory: written and read in the forward pass, read again in the
# backward pass, and its gradient written and read.
CROSSINGS = 5


def train_step(machine: Machine, precision: str = "auto") -> str:
    """Compare steps on a batch that is on the device, all that belongs to a step included."""
    rows = []
    peaks, copied = measured_peaks(machine), bandwidth(machine)
    steps = machine.size.steps
    for name, entry in default_models(machine).items():
        execution = plan(machine, entry, precision)
        ours = train_steps(entry, execution, steps=steps)
        plain = [
            ordinary_steps(entry, machine, steps=steps, same_optimizer=same)
            for same in (False, True)
        ]
        seconds, *others = machine.compare(ours, *plain)
        images = BATCH * steps
        limit, bound = physical_limit(entry, execution, peaks, copied)
        row = [f"`{name}`", how_computed(execution), per_second(images, seconds)]
        for other in others:
            row += [per_second(images, other), f"{other / seconds:.2f}"]
        rows.append([*row, f"{limit:,.0f} ({bound})", f"{images / seconds / limit:.0%}"])
    head = [
        "images/s", "computed in", "here", "ordinary loop, AdamW", "ratio",
        "ordinary loop, PyTorch's Muon", "ratio", "physical limit", "reached",
    ]  # fmt: skip
    rates = ", ".join(f"{value / 1e12:.2f} TFLOP/s in {name}" for name, value in peaks.items())
    return (
        table(head, rows)
        + f"\nMeasured peaks of this machine: {rates}, {copied / 1e9:.0f} GB/s copied.\n"
    )


def measured_peaks(machine: Machine) -> dict[str, float]:
    """Return the measured operations per second, by precision."""
    return {name: peak(machine, name) for name in ("fp32", "bf16")}


def physical_limit(
    entry: ModelEntry, execution: Execution, peaks: dict[str, float], copied: float
) -> tuple[float, str]:
    """Return the images per second that arithmetic or memory allow, and which of them limits.

    Arithmetic: three times the multiply-accumulates of a forward pass, each two operations. Memory:
    the output of each layer crosses it `CROSSINGS` times.

    Args:
        entry: The network.
        execution: Its precision counts.
        peaks: Operations per second, by precision.
        copied: Bytes per second that memory transfers.
    """
    model = new_network(entry)
    operations = 6 * macs_per_image(entry)
    elements = 0

    def count(_module: object, _inputs: object, output: torch.Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE))
    width = 2 if execution.precision == "bf16" else 4
    by_arithmetic = peaks[execution.precision] / operations
    by_memory = copied / (elements * width * CROSSINGS)
    return min((by_arithmetic, "arithmetic"), (by_memory, "memory"))


def optimizer_share(machine: Machine) -> str:
    """Measure the share of a train step that the optimizer takes."""
    rows = []
    for name, entry in default_models(machine).items():
        row = [f"`{name}`"]
        for precision in ("auto", "fp32"):
            execution = plan(machine, entry, precision)
            model = execution.place(new_network(entry)).train()
            state = TrainingState(model, entry, execution.precision)
            step = EagerStep(state, entry, execution, model)
            batch = Batch(*random_batch(execution.device), Share(0, BATCH, 1 / BATCH))
            whole = machine.median(lambda: step(batch, LEARNING_RATE))  # noqa: B023
            update = machine.median(state.optimizer.step)
            row += [f"{1000 * update:.3g} ms", f"{update / whole:.0%}"]
        rows.append(row)
    head = [
        "optimizer's update", "time, as planned", "share of the step",
        "time, in fp32", "share of the step",
    ]  # fmt: skip
    return table(head, rows)


def compiling(machine: Machine) -> str:
    """Measure the cost and the gain of `torch.compile`, for `compile_gain` of the models."""
    rows = []
    threads = torch.get_num_threads() if machine.device.type == "cpu" else 1
    steps = machine.size.steps
    for name, entry in default_models(machine).items():
        as_planned = plan(machine, entry)
        eager = train_steps(entry, replace(as_planned, compiled=False), steps=steps)
        compiled = train_steps(entry, replace(as_planned, compiled=True), steps=steps)
        torch.compiler.reset()
        with tempfile.TemporaryDirectory() as empty:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
            first = machine.seconds(compiled)
            times = [(machine.seconds(eager), machine.seconds(compiled)) for _ in range(5)]
        without, with_it = (statistics.median(column) for column in zip(*times, strict=True))
        images = BATCH * steps
        macs = images * macs_per_image(entry)
        rows.append(
            [
                f"`{name}`",
                per_second(images, without),
                per_second(images, with_it),
                f"{without / with_it:.2f}",
                f"{first - with_it:.0f} s",
                f"{(without - with_it) / macs * threads * 1e12:,.1f} ps",
            ]
        )
    head = ["images/s", "eager", "compiled", "ratio", "to compile", "saved per MAC, × threads"]
    return table(head, rows)


def kept_memory(machine: Machine) -> str:
    """Measure the gain of keeping a CPU's freed memory, all else equal."""
    if machine.device.type == "cuda":
        return "Does not apply to a GPU.\n"
    entry = default_models(machine)["convmixer"]
    network = new_network(entry)
    execution = Execution(machine.device, "fp32", memory_format(network, machine.device))
    split = noise_split(machine.size.evaluated)
    model = execution.place(network).eval()
    mean, std = torch.tensor(ordinary.MEAN), torch.tensor(ordinary.STD)
    store = ImageStore(split.images, machine.device)
    steps = machine.size.steps
    rows = []
    for name, count, work in (
        ("predictions, batches of 500", len(split),
         lambda: compute_logits(model, store, mean=mean, std=std, batch_size=500)),
        ("train steps", BATCH * steps, train_steps(entry, execution, steps=steps)),
    ):  # fmt: skip
        rows.append([f"`convmixer`, {name}", *comparison(machine, count, work, work)])
    return table(["images/s", "kept", "released", "ratio"], rows)
