"""Measure the speed of the pipeline, next to an ordinary PyTorch loop; `make bench`.

Writes docs/performance_gpu.md if there is a GPU, else docs/performance_cpu.md. Both are timed
alternately in one run and their medians compared, since machines are shared and noisy.
`python -m benchmarks.bench Augmentation Start-up` measures only these sections and keeps the others
of the page.
"""

import copy
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from benchmarks import ordinary
from benchmarks.machine import (
    Machine,
    bandwidth,
    command_seconds,
    peak,
    per_second,
    processor,
    table,
    this_machine,
)
from benchmarks.noise import CLASSES, SIZE, NoiseData, noise_split
from benchmarks.study import ROOT, copy_study, environment, run
from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.architectures import ModelEntry
from cifarpipe.config.reader import load_params
from cifarpipe.config.recipes import Augment
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import device_name, memory_format, pick_device
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.store.outputs import write_text
from cifarpipe.training.batches import AugmentedBatches, Batch
from cifarpipe.training.cost import layer_table
from cifarpipe.training.distributed import Share, World
from cifarpipe.training.execution import Execution, plan_execution
from cifarpipe.training.loop import Run, check_finite, train
from cifarpipe.training.optimizers import hidden_kernels
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import EagerStep, make_step

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

BATCH = 128
LEARNING_RATE = 1e-4
GEOMETRY = {"crop": 4, "flip": "random", "rotate": 15.0, "cutout": 8}
RANDAUGMENT = {"randaugment": {"n": 2, "m": 9}}
# How often an activation crosses memory: written and read in the forward pass, read again in the
# backward pass, and its gradient written and read.
CROSSINGS = 5
EPOCH_HEAD = ["images/s", "here", "ordinary loop", "ratio", "an epoch of 50,000 images"]


def augmentation(machine: Machine) -> str:
    """Compare the augmentation of train images, without a network."""
    split = noise_split(machine.size.augmented)
    rows = []
    for name, recipe, randaugment in (
        ("crop + flip + rotate + cutout", GEOMETRY, False),
        ("the same + RandAugment(2, 9)", GEOMETRY | RANDAUGMENT, True),
    ):
        batches = AugmentedBatches(
            ImageStore(split.images, machine.device),
            split.labels,
            Augmentation(
                Augment.model_validate(recipe),
                mean=torch.tensor(ordinary.MEAN, device=machine.device),
                std=torch.tensor(ordinary.STD, device=machine.device),
                image_size=SIZE,
                classes=CLASSES,
                seed=0,
            ),
            batch_size=BATCH,
            seed=0,
            world=World(),
        )
        transform = ordinary.transform(rotate=15.0, cutout=8, randaugment=randaugment)
        dataset = ordinary.ImageDataset(split.images, split.labels, transform)
        loader = ordinary.loader(dataset, BATCH, machine.device, shuffle=True)

        def ours(batches: AugmentedBatches = batches) -> None:
            for _ in batches.epoch(1):
                pass

        def baseline(loader: ordinary.Loader = loader) -> None:
            for images, _ in loader:
                images.to(machine.device)

        rows.append([name, *comparison(machine, len(split), ours, baseline, places=1)])
    return table(["images/s", "here", "ordinary loop", "ratio"], rows)


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
    return plan_execution(options, entry.arch, macs, machine.device, World())


def train_steps(entry: ModelEntry, execution: Execution, *, steps: int) -> Callable[[], None]:
    """Return a function that makes train steps on one batch, as `loop.train` makes them.

    Args:
        entry: Network and recipe.
        execution: How to compute.
        steps: Of one call.
    """
    with execution.own_stream():
        model = execution.place(new_network(entry)).train()
        state = TrainingState(model, entry)
        step = make_step("bench", state, model, entry, execution, size=BATCH)
        batch = Batch(*random_batch(execution.device), Share(0, BATCH, 1 / BATCH))
        losses = torch.zeros(steps, device=execution.device)
        hits = torch.zeros((), device=execution.device)

    @execution.own_stream()
    def work() -> None:
        for number in range(steps):
            losses[number], correct = step(batch, LEARNING_RATE)
            hits.add_(correct)
            if execution.device.type == "cpu":
                check_finite("bench", losses[number : number + 1], 1, number, LEARNING_RATE)

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


def random_batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images and labels."""
    inputs = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    return inputs, torch.randint(CLASSES, (BATCH,), device=device)


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


def how_computed(execution: Execution) -> str:
    """Return an execution in words."""
    how = [execution.precision]
    how += ["channels last"] * (execution.memory_format is torch.channels_last)
    how += ["compiled"] * execution.compiled
    how += ["graphed"] * execution.graphed
    return ", ".join(how)


def optimizer_share(machine: Machine) -> str:
    """Measure the share of a train step that the optimizer takes."""
    rows = []
    for name, entry in default_models(machine).items():
        row = [f"`{name}`"]
        for precision in ("auto", "fp32"):
            execution = plan(machine, entry, precision)
            model = execution.place(new_network(entry)).train()
            state = TrainingState(model, entry)
            step = EagerStep(state, entry, execution, model)
            batch = Batch(*random_batch(execution.device), Share(0, BATCH, 1 / BATCH))
            whole = machine.median(lambda: step(batch, LEARNING_RATE))  # noqa: B023
            update = machine.median(state.optimizer.step)
            row += [f"{1000 * update:.3g} ms", f"{update / whole:.0%}"]
        rows.append(row)
    head = ["optimizer", "in the planned precision", "share", "in fp32", "share"]
    return table(head, rows)


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


def compiling(machine: Machine) -> str:
    """Measure the cost and the gain of `torch.compile`, for `execution.COMPILE_GAINS`."""
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


def epoch_seconds(entry: ModelEntry, name: str, execution: Execution, images: int) -> float:
    """Return the median seconds of an epoch of training; the first one is not counted."""
    plan = Run(name, entry, LEARNING_RATE, seed=0, keep="last")
    state = train(new_network(entry), NoiseData(noise_split(images)), plan, execution)
    return float(state.history().seconds[1:].median())


def whole_epoch(machine: Machine) -> str:
    """Compare complete epochs of training, by each model's default recipe."""
    models = default_models(machine)
    return table(EPOCH_HEAD, [epoch_row(machine, name, entry) for name, entry in models.items()])


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


def evaluation(machine: Machine) -> str:
    """Compare the prediction of test images, both in fp32."""
    split = noise_split(machine.size.evaluated)
    mean, std = (torch.tensor(v, device=machine.device) for v in (ordinary.MEAN, ordinary.STD))
    rows = []
    for name, entry in default_models(machine).items():
        model = new_network(entry).to(machine.device).eval()
        plain = copy.deepcopy(model)
        model.to(memory_format=memory_format(entry.arch, machine.device))
        store = ImageStore(split.images, machine.device)
        dataset = ordinary.ImageDataset(split.images, split.labels, ordinary.transform(train=False))
        loader = ordinary.loader(dataset, BATCH, machine.device, shuffle=False)

        def ours(model=model, store=store) -> None:
            compute_logits(model, store, mean=mean, std=std, batch_size=500).cpu()

        def baseline(model=plain, loader=loader) -> None:
            ordinary.evaluate(model, loader, machine.device)

        rows.append([f"`{name}`", *comparison(machine, len(split), ours, baseline)])
    return table(["images/s", "here", "ordinary loop", "ratio"], rows)


def kept_memory(machine: Machine) -> str:
    """Measure the gain of keeping a CPU's freed memory, all else equal."""
    if machine.device.type == "cuda":
        return "Does not apply to a GPU.\n"
    execution = Execution(machine.device, "fp32", memory_format("convmixer", machine.device))
    entry = default_models(machine)["convmixer"]
    split = noise_split(machine.size.evaluated)
    model = execution.place(new_network(entry)).eval()
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


def growth(machine: Machine) -> str:
    """Measure the seconds per image of a small network for more and more images."""
    small = {"dim": 8, "depth": 1, "batch_size": BATCH}
    entry = default_models(machine)["convmixer"].model_copy(update=small)
    execution = Execution(machine.device, "fp32")
    per_image: dict[int, list[float]] = {5_000: [], 50_000: []}
    for _ in range(machine.size.repeats):
        for count, times in per_image.items():
            recipe = entry.model_copy(update={"epochs": 10 if count == 5_000 else 2})
            times.append(epoch_seconds(recipe, "convmixer", execution, count) / count)
    few, many = (statistics.median(times) * 1e6 for times in per_image.values())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.streamed"], cwd=ROOT, capture_output=True, text=True,
        env=environment(), check=True,
    )  # fmt: skip
    return (
        f"A small network (ConvMixer, dim 8, depth 1): {few:.1f} µs per image with 5,000 images, "
        f"{many:.1f} with 50,000, ratio {many / few:.2f}.\n\n{done.stdout.splitlines()[-1]}\n"
    )


def start_up() -> str:
    """Measure stages with next to nothing to do, and `dvc repro` without changes."""
    models = {
        "vit": {"dim": 32, "depth": 1, "heads": 2, "mlp_dim": 32, "epochs": 1},
        "convmixer": {"dim": 16, "depth": 1, "epochs": 1},
    }
    changes = {
        "data": {"train_size": 100, "val_size": 20, "test_size": 40},
        "gradcam": {"removal_images": 10},
        "misclassified": {"count": 4},
    }
    per_model = ("train", "evaluate", "misclassified", "gradcam", "figures")
    stages = ["check", "prepare", *(f"{stage} vit" for stage in per_model), "report"]
    count = 3 + len(per_model) * len(models)
    rows = []

    def measured(*command: str) -> str:
        return f"{command_seconds(folder, list(command)):.1f}"

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_study(folder, changes, models)
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
        run(folder, "dvc", "repro")
        python = sys.executable, "-m"
        for stage in stages:
            name, *model = stage.split()
            first = ""
            if name in ("train", "evaluate", "gradcam"):
                first = measured(*python, "benchmarks.first_batch", name, *model)
            rows.append([f"`{name}`", first, measured(*python, f"stages.{name}", *model)])
        rows.append(["`train --help`", "", measured(*python, "stages.train", "--help")])
        run(folder, "dvc", "repro")
        rows.append([f"`dvc repro` of {count} stages, no changes", "", measured("dvc", "repro")])
    return table(["seconds", "to the first batch", "total"], rows)


def sections(machine: Machine) -> dict[str, Callable[[], str]]:
    """Return all sections of the page: their headings, and what measures and writes each."""
    return {
        "Augmentation": lambda: augmentation(machine),
        "Train step": lambda: train_step(machine),
        "Train step in fp32": lambda: train_step(machine, "fp32"),
        "Optimizer": lambda: optimizer_share(machine),
        "Kept memory": lambda: kept_memory(machine),
        "Compiling": lambda: compiling(machine),
        "Whole epoch": lambda: whole_epoch(machine),
        "Evaluation": lambda: evaluation(machine),
        "More images": lambda: growth(machine),
        "Start-up": start_up,
    }


def main() -> None:
    """Measure all sections, or those named on the command line, and write the page."""
    machine = this_machine()
    measurements = sections(machine)
    names = sys.argv[1:] or list(measurements)
    if unknown := set(names) - set(measurements):
        sys.exit(f"no section {', '.join(sorted(unknown))}; known: {', '.join(measurements)}")
    page = ROOT / "docs" / f"performance_{'gpu' if machine.device.type == 'cuda' else 'cpu'}.md"
    texts = read_sections(page)
    for name in tqdm(names, disable=None, leave=False):
        texts[name] = measurements[name]()
        print(f"## {name}\n\n{texts[name]}", flush=True)
        in_order = {each: texts[each] for each in measurements if each in texts}
        write_text(page, page_text(page_head(machine, "make bench"), in_order))
    print(f"written: {page.relative_to(ROOT)}")


def page_head(machine: Machine, command: str) -> str:
    """Return the page's head: what it was measured on, and by which command."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "dvc"))
    return (
        f"# Measured on {'a GPU' if machine.device.type == 'cuda' else 'a CPU'}\n\n"
        f"By `{command}`; [performance.md](performance.md) explains the numbers. "
        f"{device_name(machine.device)}; {processor()}; Python {platform.python_version()}, "
        f"{packages}. Medians of {machine.size.repeats}, both alternately in one run.\n"
    )


def page_text(head: str, texts: dict[str, str]) -> str:
    """Return the page."""
    return head + "".join(f"\n## {name}\n\n{text}" for name, text in texts.items())


def read_sections(page: Path) -> dict[str, str]:
    """Return the sections of the page of an earlier run, by heading."""
    if not page.is_file():
        return {}
    _, *parts = page.read_text(encoding="utf-8").split("\n## ")
    return {name: body.strip("\n") + "\n" for name, _, body in (p.partition("\n") for p in parts)}


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
