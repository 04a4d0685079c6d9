"""Sections of the benchmark on passes over many images, and on the start of stages."""

import copy
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks import ordinary
from benchmarks.machine import (
    Machine,
    command_seconds,
    table,
)
from benchmarks.noise import CLASSES, SIZE, noise_split
from benchmarks.study import ROOT, copy_study, environment, run
from benchmarks.workloads import (
    BATCH,
    EPOCH_HEAD,
    comparison,
    default_models,
    epoch_row,
    epoch_seconds,
    new_network,
)
from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.recipes import Augment
from cifarpipe.networks.devices import memory_format
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.training.batches import AugmentedBatches
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution

GEOMETRY = {"crop": 4, "flip": "random", "rotate": 15.0, "cutout": 8}
RANDAUGMENT = {"randaugment": {"n": 2, "m": 9}}


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


def whole_epoch(machine: Machine) -> str:
    """Compare complete epochs of training, by each model's default recipe."""
    models = default_models(machine)
    return table(EPOCH_HEAD, [epoch_row(machine, name, entry) for name, entry in models.items()])


def evaluation(machine: Machine) -> str:
    """Compare the prediction of test images, both in fp32."""
    split = noise_split(machine.size.evaluated)
    mean, std = (torch.tensor(v, device=machine.device) for v in (ordinary.MEAN, ordinary.STD))
    rows = []
    for name, entry in default_models(machine).items():
        model = new_network(entry).to(machine.device).eval()
        plain = copy.deepcopy(model)
        model.to(memory_format=memory_format(model, machine.device))
        store = ImageStore(split.images, machine.device)
        dataset = ordinary.ImageDataset(split.images, split.labels, ordinary.transform(train=False))
        loader = ordinary.loader(dataset, BATCH, machine.device, shuffle=False)

        def ours(model: nn.Module = model, store: ImageStore = store) -> None:
            compute_logits(model, store, mean=mean, std=std, batch_size=500).cpu()

        def baseline(model: nn.Module = plain, loader: ordinary.Loader = loader) -> None:
            ordinary.evaluate(model, loader, machine.device)

        rows.append([f"`{name}`", *comparison(machine, len(split), ours, baseline)])
    return table(["images/s", "here", "ordinary loop", "ratio"], rows)


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
