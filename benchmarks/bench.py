"""How fast the pipeline is on this machine, beside the ordinary way; `make bench`.

Writes docs/performance_cpu.md or docs/performance_gpu.md, whichever device there is. Both ways are
measured in turn within one run, and medians are compared, since machines are shared and noisy.
`python -m benchmarks.bench Augmentation Start-up` measures these anew, keeping the rest.
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

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from benchmarks import ordinary
from benchmarks.machine import (
    CPU_SIZE,
    GPU_SIZE,
    MODELS,
    Machine,
    bandwidth,
    command_seconds,
    peak,
    per_second,
    processor,
    table,
)
from benchmarks.study import ROOT, copy_study, environment, run
from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Augment, ModelEntry
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import autocast, device_name, memory_format, pick_device
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.store.outputs import write_text
from cifarpipe.store.prepared import Split
from cifarpipe.training.batches import AugmentedBatches
from cifarpipe.training.cost import count_macs
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution, plan_execution
from cifarpipe.training.loop import train
from cifarpipe.training.optim import make_optimizer

BATCH = 128
GEOMETRY = {"crop": 4, "flip": "random", "rotate": 15.0, "cutout": 8}
RANDAUGMENT = {"randaugment": {"n": 2, "m": 9, "omit": []}}
# How often an activation passes through memory: written and read going forward, read again going
# back, and its gradient written and read.
PASSES = 5


def make_split(count: int) -> Split:
    """Return images of noise: how fast they are does not depend on what they show."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, 10, count), np.arange(count))


def augmentation(machine: Machine) -> str:
    """Compare how fast train images are made ready, the network left out."""
    split = make_split(machine.size.augmented)
    nothing = load_params(ROOT / "params.yaml").models["vit"].augment.model_dump()
    rows = []
    for name, recipe, options in (
        ("crop + flip + rotate + cutout", GEOMETRY, {}),
        ("the same + RandAugment(2, 9)", GEOMETRY | RANDAUGMENT, {"randaugment": True}),
    ):
        batches = AugmentedBatches(
            ImageStore(split.images, machine.device),
            split.labels,
            Augmentation(
                Augment.model_validate(nothing | recipe),
                mean=torch.tensor(ordinary.MEAN, device=machine.device),
                std=torch.tensor(ordinary.STD, device=machine.device),
                image_size=32,
                classes=10,
                seed=0,
            ),
            batch_size=BATCH,
            seed=0,
            world=World(),
        )
        change = ordinary.transform(rotate=15.0, cutout=8, **options)
        pictures = ordinary.Pictures(split.images, split.labels, change)
        loader = ordinary.loader(pictures, BATCH, machine.device, shuffle=True)

        def ours(batches: AugmentedBatches = batches) -> None:
            for _ in batches.epoch(1):
                pass

        def theirs(loader: ordinary.Loader = loader) -> None:
            for images, _ in loader:
                images.to(machine.device)

        quick, slow = machine.compare(ours, theirs)
        count = len(split)
        ratio = f"{slow / quick:.1f}"
        rows.append([name, per_second(count, quick), per_second(count, slow), ratio])
    return table(["images/s", "here", "ordinary", "ratio"], rows)


def plan(machine: Machine, entry: ModelEntry, precision: str = "auto") -> Execution:
    """Return how a run of the default length on all of CIFAR-10 is computed."""
    options = load_params(ROOT / "params.yaml").train.model_copy(update={"precision": precision})
    macs = 45_000 * entry.epochs * macs_per_image(entry)
    return plan_execution(options, entry.arch, macs, machine.device, World())


def macs_per_image(entry: ModelEntry) -> int:
    """Return the multiply-accumulates of a forward pass."""
    return count_macs(build_model(entry, num_classes=10, image_size=32), 32)


def stepper(
    entry: ModelEntry, execution: Execution, *, fused: bool, steps: int
) -> Callable[[], None]:
    """Return a function that makes some train steps on one batch."""
    torch.manual_seed(0)
    device = execution.device
    model = execution.place(build_model(entry, num_classes=10, image_size=32)).train()
    network = execution.stepper(model)
    optimizer = make_optimizer(model, entry) if fused else plain_optimizer(model)
    inputs = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(10, (BATCH,), device=device)

    def work() -> None:
        for _ in range(steps):
            with autocast(device, execution.precision):
                logits = network(inputs).float()
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not fused:
                loss.item()

    return work


def plain_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return what tutorials take."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=False)


def train_step(machine: Machine, precision: str = "auto") -> str:
    """Compare a step on a batch that is there already: forward, backward, optimizer."""
    rows = []
    peaks = {name: peak(machine, name) for name in ("fp32", "bf16")}
    for name, entry in default_models().items():
        execution = plan(machine, entry, precision)
        steps = machine.size.steps
        own = stepper(entry, execution, fused=True, steps=steps)
        plain = Execution(machine.device, "fp32")
        quick, slow = machine.compare(own, stepper(entry, plain, fused=False, steps=steps))
        images = BATCH * steps
        limit, what = physical_limit(machine, entry, execution, peaks)
        how = [execution.precision]
        how += ["channels last"] * (execution.memory_format is torch.channels_last)
        how += ["compiled"] * execution.compiled
        rows.append(
            [
                f"`{name}`",
                ", ".join(how),
                per_second(images, quick),
                per_second(images, slow),
                f"{slow / quick:.2f}",
                f"{limit:,.0f} ({what})",
                f"{images / quick / limit:.0%}",
            ]
        )
    head = ["images/s", "computed in", "here", "ordinary", "ratio", "physical limit", "reached"]
    numbers = ", ".join(f"{value / 1e12:.2f} TFLOP/s in {name}" for name, value in peaks.items())
    measured = f"{numbers}, {bandwidth(machine) / 1e9:.0f} GB/s copied"
    return table(head, rows) + f"\nMeasured peaks of this machine: {measured}.\n"


def compiling(machine: Machine) -> str:
    """Measure what `torch.compile` costs and saves: the source of `execution.COMPILING`."""
    rows = []
    threads = torch.get_num_threads() if machine.device.type == "cpu" else 1
    for name, entry in default_models().items():
        eager = replace(plan(machine, entry), compiled=False)
        steps = machine.size.steps
        plain = stepper(entry, eager, fused=True, steps=steps)
        quick = stepper(entry, replace(eager, compiled=True), fused=True, steps=steps)
        torch.compiler.reset()
        with tempfile.TemporaryDirectory() as empty:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
            first = machine.seconds(quick)
            times = [(machine.seconds(plain), machine.seconds(quick)) for _ in range(5)]
        without, compiled = (statistics.median(column) for column in zip(*times, strict=True))
        images = BATCH * steps
        work = images * macs_per_image(entry)
        rows.append(
            [
                f"`{name}`",
                per_second(images, without),
                per_second(images, compiled),
                f"{without / compiled:.2f}",
                f"{first - compiled:.0f} s",
                f"{(without - compiled) / work * threads * 1e12:,.1f} ps",
            ]
        )
    head = ["images/s", "as it is", "compiled", "ratio", "to compile", "saved per MAC, × threads"]
    return table(head, rows)


def default_models() -> dict[str, ModelEntry]:
    """Return the default networks, their batches all of one size."""
    models = load_params(ROOT / "params.yaml").models
    return {name: models[name].model_copy(update={"batch_size": BATCH}) for name in MODELS}


def physical_limit(
    machine: Machine, entry: ModelEntry, execution: Execution, peaks: dict[str, float]
) -> tuple[float, str]:
    """Return the images per second that arithmetic or memory allow, and which of them does.

    Arithmetic: three times the multiply-accumulates of a forward pass. Memory: each layer's output
    passes `PASSES` times.
    """
    model = build_model(entry, num_classes=10, image_size=32)
    operations = 6 * macs_per_image(entry)
    elements = 0

    def count(_module: object, _inputs: object, output: torch.Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    width = 2 if execution.precision == "bf16" else 4
    by_arithmetic = peaks[execution.precision] / operations
    by_memory = bandwidth(machine) / (elements * width * PASSES)
    if by_arithmetic < by_memory:
        return by_arithmetic, "arithmetic"
    return by_memory, "memory"


def whole_epoch(machine: Machine) -> str:
    """Compare an epoch with all that belongs to it, by each model's default recipe."""
    rows = []
    for name, entry in default_models().items():
        count = machine.size.trained[name]
        split, empty = make_split(count), make_split(0)
        epochs = machine.size.repeats + 1
        pick_device()  # sets up how memory is kept
        execution = plan(machine, entry)
        torch.manual_seed(0)
        history = train(
            name, build_model(entry, num_classes=10, image_size=32),
            entry.model_copy(update={"epochs": epochs}), train_split=split, val_split=empty,
            mean=list(ordinary.MEAN), std=list(ordinary.STD), classes=10, peak_lr=1e-4, seed=0,
            keep="last", execution=execution,
        ).history  # fmt: skip
        quick = statistics.median(history.seconds[1:])
        recipe = entry.augment
        change = ordinary.transform(rotate=recipe.rotate, cutout=recipe.cutout)
        pictures = ordinary.Pictures(split.images, split.labels, change)
        batches = ordinary.loader(pictures, BATCH, machine.device, shuffle=True)
        model = build_model(entry, num_classes=10, image_size=32).to(machine.device)
        optimizer = plain_optimizer(model)
        ordinary.usual_memory()
        epoch = [
            machine.seconds(lambda: ordinary.train_epoch(model, batches, optimizer, machine.device))  # noqa: B023
            for _ in range(epochs)
        ]
        slow = statistics.median(epoch[1:])
        rates = [per_second(count, quick), per_second(count, slow), f"{slow / quick:.2f}"]
        rows.append([f"`{name}`", *rates, f"{50_000 * quick / count:,.1f} s"])
    return table(["images/s", "here", "ordinary", "ratio", "an epoch of 50,000 images"], rows)


def evaluation(machine: Machine) -> str:
    """Compare the answers on test images, both in fp32."""
    split = make_split(machine.size.evaluated)
    rows = []
    for name, entry in default_models().items():
        model = build_model(entry, num_classes=10, image_size=32).to(machine.device).eval()
        plain = copy.deepcopy(model)
        model.to(memory_format=memory_format(entry.arch, machine.device))
        mean, std = (torch.tensor(v, device=machine.device) for v in (ordinary.MEAN, ordinary.STD))
        store = ImageStore(split.images, machine.device)
        pictures = ordinary.Pictures(split.images, split.labels, ordinary.transform(train=False))
        loader = ordinary.loader(pictures, BATCH, machine.device, shuffle=False)

        def ours(model=model, store=store, mean=mean, std=std) -> None:
            compute_logits(model, store, mean=mean, std=std, batch_size=500).cpu()

        def theirs(model=plain, loader=loader) -> None:
            ordinary.evaluate(model, loader, machine.device)

        quick, slow = machine.compare(ours, theirs)
        count = len(split)
        ratio = f"{slow / quick:.2f}"
        rows.append([f"`{name}`", per_second(count, quick), per_second(count, slow), ratio])
    return table(["images/s", "here", "ordinary", "ratio"], rows)


def kept_memory(machine: Machine) -> str:
    """Measure what keeping a CPU's freed memory is worth, all else equal."""
    if machine.device.type == "cuda":
        return "Not for a GPU.\n"
    execution = Execution(machine.device, "fp32", memory_format("convmixer", machine.device))
    entry = default_models()["convmixer"]
    split = make_split(machine.size.evaluated)
    model = execution.place(build_model(entry, num_classes=10, image_size=32)).eval()
    mean, std = torch.tensor(ordinary.MEAN), torch.tensor(ordinary.STD)
    store = ImageStore(split.images, machine.device)
    steps = machine.size.steps
    rows = []
    for name, count, work in (
        ("answers, batches of 500", len(split),
         lambda: compute_logits(model, store, mean=mean, std=std, batch_size=500)),
        ("train steps", BATCH * steps, stepper(entry, execution, fused=True, steps=steps)),
    ):  # fmt: skip
        quick, slow = machine.compare(work, work)
        rates = [per_second(count, quick), per_second(count, slow), f"{slow / quick:.2f}"]
        rows.append([f"`convmixer`, {name}", *rates])
    return table(["images/s", "kept", "given back", "ratio"], rows)


def growth(machine: Machine) -> str:
    """Measure the seconds per image of a small network at three sizes, the last one streamed."""
    small = {"dim": 8, "depth": 1, "batch_size": BATCH}
    entry = default_models()["convmixer"].model_copy(update=small)
    execution = Execution(machine.device, "fp32")
    per_image: dict[int, list[float]] = {5_000: [], 50_000: []}
    for _ in range(machine.size.repeats):
        for count, found in per_image.items():
            epochs = 10 if count == 5_000 else 2  # the first one is not counted
            torch.manual_seed(0)
            history = train(
                "convmixer", build_model(entry, num_classes=10, image_size=32),
                entry.model_copy(update={"epochs": epochs}), train_split=make_split(count),
                val_split=make_split(0), mean=list(ordinary.MEAN), std=list(ordinary.STD),
                classes=10, peak_lr=1e-4, seed=0, keep="last", execution=execution,
            ).history  # fmt: skip
            found.append(float(history.seconds[1:].median()) / count)
    few, many = (statistics.median(found) * 1e6 for found in per_image.values())
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.streamed"], cwd=ROOT, capture_output=True, text=True,
        env=environment(), check=True,
    )  # fmt: skip
    return (
        f"A small network (ConvMixer, dim 8, depth 1): {few:.1f} µs per image with 5,000 images, "
        f"{many:.1f} with 50,000, ratio {many / few:.2f}.\n\n{done.stdout.splitlines()[-1]}\n"
    )


def start_up() -> str:
    """Measure what a stage takes that has next to nothing to do, and `dvc repro` with nothing."""
    models = {
        "vit": {"dim": 32, "depth": 1, "heads": 2, "mlp_dim": 32, "epochs": 1},
        "convmixer": {"dim": 16, "depth": 1, "epochs": 1},
    }
    data = {"train_size": 100, "val_size": 20, "test_size": 40}
    stages = ["prepare", "train vit", "evaluate vit", "misclassified vit", "gradcam vit", "report"]
    rows = []

    def measured(*command: str) -> str:
        return f"{command_seconds(folder, list(command)):.1f}"

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        changes = {"data": data, "gradcam": {"removal_images": 10}, "misclassified": {"count": 4}}
        copy_study(folder, changes, models)
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
        run(folder, "dvc", "repro")
        for stage in stages:
            name, *model = stage.split()
            python = sys.executable, "-m"
            first = ""
            if name in ("train", "evaluate", "gradcam"):
                first = measured(*python, "benchmarks.first_batch", name, *model)
            rows.append([f"`{name}`", first, measured(*python, f"stages.{name}", *model)])
        rows.append(["`train --help`", "", measured(*python, "stages.train", "--help")])
        run(folder, "dvc", "repro")
        rows.append(["`dvc repro` of 10 stages, nothing to do", "", measured("dvc", "repro")])
    return table(["seconds", "to the first batch", "in all"], rows)


def main() -> None:
    """Measure everything and write the page."""
    device = pick_device()
    machine = Machine(device, GPU_SIZE if device.type == "cuda" else CPU_SIZE)
    parts = {
        "Augmentation": lambda: augmentation(machine),
        "Train step": lambda: train_step(machine),
        "Train step in fp32": lambda: train_step(machine, "fp32"),
        "Kept memory": lambda: kept_memory(machine),
        "Compiling": lambda: compiling(machine),
        "Whole epoch": lambda: whole_epoch(machine),
        "Evaluation": lambda: evaluation(machine),
        "Growth": lambda: growth(machine),
        "Start-up": start_up,
    }
    wanted = sys.argv[1:] or list(parts)
    page = ROOT / "docs" / f"performance_{'gpu' if device.type == 'cuda' else 'cpu'}.md"
    measured = sections(page)
    for name in tqdm(wanted, disable=None, leave=False):
        measured[name] = parts[name]()
        print(f"## {name}\n\n{measured[name]}", flush=True)
        packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "dvc"))
        text = (
            f"# Measured on {'a GPU' if device.type == 'cuda' else 'a CPU'}\n\n"
            f"By `make bench`; what the figures mean: [performance.md](performance.md). "
            f"{device_name(device)}; {processor()}; Python {platform.python_version()}, "
            f"{packages}. Medians of {machine.size.repeats}, both ways in turn in one run.\n"
        )
        known = [name for name in parts if name in measured]
        text += "".join(f"\n## {name}\n\n{measured[name]}" for name in known)
        write_text(page, text)
    print(f"written: {page.relative_to(ROOT)}")


def sections(page: Path) -> dict[str, str]:
    """Return what an earlier run measured, by heading."""
    if not page.is_file():
        return {}
    _, *parts = page.read_text(encoding="utf-8").split("\n## ")
    return {name: body.strip("\n") + "\n" for name, _, body in (p.partition("\n") for p in parts)}


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
