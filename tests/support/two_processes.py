"""Trains small networks; `test_distributed.py` starts it in two processes.

`python -m tests.support.two_processes FOLDER` writes weights and history of each.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Mix
from cifarpipe.models.build import build_model
from cifarpipe.store.prepared import Split
from cifarpipe.training.distributed import World, joined
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Trained, train

ROOT = Path(__file__).parents[2]
MODELS = {
    "vit": {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8, "mlp_dim": 16},
    "convmixer": {"dim": 8, "depth": 1},
}

# Five batches of 16, and seven images, which two processes share as four and three, or a single
# one, which both take.
IMAGES = {"vit": 87, "convmixer": 81}


def make_split(count: int, seed: int) -> Split:
    """Ten classes that differ in brightness."""
    labels = np.arange(count) % 10
    images = np.random.default_rng(seed).integers(0, 60, (count, 16, 16, 3), dtype=np.uint8)
    return Split(images + 19 * labels[:, None, None, None].astype(np.uint8), labels, labels)


def learn(name: str, world: World | None = None) -> Trained:
    """Train one network of `MODELS`."""
    entry = load_params(ROOT / "params.demo.yaml").models[name]
    mixed = entry.augment.model_copy(update={"mixup": Mix(probability=0.5, alpha=0.4)})
    recipe = {"epochs": 3, "batch_size": 16, "schedule": "cosine", "augment": mixed, "ema": 0.5}
    entry = entry.model_copy(update=MODELS[name] | recipe)
    torch.manual_seed(0)
    return train(
        name, build_model(entry, num_classes=10, image_size=16), entry,
        train_split=make_split(IMAGES[name], seed=0), val_split=make_split(31, seed=1),
        mean=[0.4] * 3, std=[0.3] * 3, classes=10, peak_lr=0.003, seed=0, keep="last",
        execution=Execution(torch.device("cpu"), "fp32", world=world or World()),
    )  # fmt: skip


def main(folder: Path) -> None:
    """Train all of them as one of several processes; the first one writes."""
    with joined() as (world, _):
        for name in MODELS:
            trained = learn(name, world)
            if world.leads:
                torch.save(trained.weights, folder / f"{name}.weights")
                trained.history.to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
