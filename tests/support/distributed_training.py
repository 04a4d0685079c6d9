"""Train small networks in one process or in several.

`python -m tests.support.distributed_training FOLDER`, started by torchrun, writes the weights and
the history of each network.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from cifarpipe.config.reader import load_params
from cifarpipe.config.recipes import Mix
from cifarpipe.models.build import build_model
from cifarpipe.store.prepared import Split
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution
from cifarpipe.training.launch import joined
from cifarpipe.training.loop import Run, train
from cifarpipe.training.state import TrainingState
from tests.support.training_data import TrainingData

ROOT = Path(__file__).parents[2]
MODELS = {
    "vit": {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8, "mlp_dim": 16},
    "convmixer": {"dim": 8, "depth": 1},
}
# Five batches of 16 and one of seven images, which two processes share as four and three, or of a
# single image, of which one process gets nothing.
IMAGES = {"vit": 87, "convmixer": 81}


def bright_split(count: int, seed: int) -> Split:
    """Return ten classes that differ in brightness."""
    labels = np.arange(count) % 10
    images = np.random.default_rng(seed).integers(0, 60, (count, 16, 16, 3), dtype=np.uint8)
    return Split(images + 19 * labels[:, None, None, None].astype(np.uint8), labels, labels)


def train_small(name: str, world: World | None = None) -> TrainingState:
    """Train one network of `MODELS`, with mixing and averaged weights."""
    entry = load_params(ROOT / "params.demo.yaml").models[name]
    mixed = entry.augment.model_copy(update={"mixup": Mix(probability=0.5, alpha=0.4)})
    recipe = {"epochs": 3, "batch_size": 16, "schedule": "cosine", "augment": mixed, "ema": 0.5}
    entry = entry.model_copy(update=MODELS[name] | recipe)
    data = TrainingData(
        train=bright_split(IMAGES[name], seed=0),
        val=bright_split(31, seed=1),
        classes=[f"class {label}" for label in range(10)],
        mean=(0.4, 0.4, 0.4),
        std=(0.3, 0.3, 0.3),
    )
    torch.manual_seed(0)
    network = build_model(entry.architecture, num_classes=10, image_size=16)
    run = Run(name, entry, peak_lr=0.003, seed=0, keep="last")
    execution = Execution(torch.device("cpu"), "fp32", world=world or World())
    return train(network, data, run, execution)


def main(folder: Path) -> None:
    """Train all networks as one of several processes; the main process writes."""
    with joined() as (world, _):
        for name in MODELS:
            state = train_small(name, world)
            if world.is_main:
                torch.save(state.kept_weights, folder / f"{name}.weights")
                state.history().to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
