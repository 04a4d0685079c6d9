"""Which layer and method explains a model best: `python -m benchmarks.explanations MODEL …`.

Run it in a folder where `make demo` has run, or any study with models in artifacts/: it measures
every candidate on the test images there and writes a table like those of docs/explanations/.
`alike` is the rank correlation with the maps of random weights.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.explanations.attention import attention_rollout, gradient_attention
from cifarpipe.explanations.faithfulness import (
    centre_maps,
    deletion_insertion,
    energy_inside,
    mean_interval,
    pointing_game,
    random_maps,
    rank_correlation,
    road,
)
from cifarpipe.explanations.gradcam import METHODS, Maps, class_activation_maps
from cifarpipe.explanations.quality import with_random_weights
from cifarpipe.models.build import as_classifier
from cifarpipe.models.convmixer import ConvMixer
from cifarpipe.models.resnet18_ln import ResNet18LN
from cifarpipe.models.vit import Block, ViT
from cifarpipe.networks.checkpoint import Origin, load_model
from cifarpipe.networks.devices import pick_device
from cifarpipe.networks.normalize import normalize
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split, load_prepared

AT_ONCE = 50
GRID = 8  # of maps that know nothing
Explain = Callable[[Tensor, Tensor], Maps]


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the candidates by name, the earliest first."""
    match model:
        case ViT():
            found: dict[str, nn.Module] = {}
            for number, block in enumerate(model.blocks, 1):
                assert isinstance(block, Block)
                found[f"norm before attention {number}"] = block.attention_norm
                found[f"block {number}"] = block
            if model.class_token is None:
                found["last norm"] = model.norm
            else:
                found.popitem()  # after the last attention only the class token is read
            return found
        case ConvMixer():
            return {f"block {i}": block for i, block in enumerate(model.blocks, 1)}
        case ResNet18LN():
            return {f"stage {i}": stage for i, stage in enumerate(model.stages, 1)}
        case _:
            raise TypeError(type(model))


def candidates(model: nn.Module, last: int, methods: list[str]) -> dict[tuple[str, str], Explain]:
    """Return what makes the maps, by method and layer (the `last` ones)."""
    layout = as_classifier(model)
    found: dict[tuple[str, str], Explain] = {}
    for name, layer in list(layers(model).items())[-last:]:
        for method in methods:
            found[method, name] = lambda batch, classes, layer=layer, method=method: (
                class_activation_maps(model, layer, layout.cam_map, batch, classes, method=method)
            )
    if isinstance(model, ViT):
        found["attention_rollout", "all"] = lambda batch, _classes: attention_rollout(model, batch)
        found["gradient_attention", "all"] = lambda *asked: gradient_attention(model, *asked)
    return found


@dataclass(frozen=True)
class Question:
    """Correct test images, and what is known of them."""

    batch: Tensor
    """`[N, 3, S, S]` normalised."""
    classes: Tensor
    """`[N]`, true and predicted."""
    masks: NDArray[np.bool_] | None
    """`[N, S, S]` where the object is, if that is known."""

    def maps(self, explain: Explain, count: int | None = None) -> Maps:
        """Explain the first `count` images, or all."""
        parts = zip(
            self.batch[:count].split(AT_ONCE), self.classes[:count].split(AT_ONCE), strict=True
        )
        return np.concatenate([explain(*part) for part in parts])


def ask(
    model: nn.Module, origin: Origin, split: Split, masks: NDArray[np.bool_] | None, count: int
) -> Question:
    """Draw images that the network gets right."""
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in (origin.mean, origin.std))
    # Not the first ones: a test split may stand in the order of its classes.
    some = np.random.default_rng(0).permutation(len(split))[: 4 * count]
    images = torch.from_numpy(np.array(split.images[some])).to(device)
    labels = torch.from_numpy(np.array(split.labels[some]))
    batch = normalize(images, mean, std)
    with torch.no_grad():
        predicted = torch.cat([model(part) for part in batch.split(AT_ONCE)]).argmax(1).cpu()
    right = (predicted == labels).nonzero()[:count, 0]
    known = None if masks is None else np.array(masks[some])[right.numpy()]
    return Question(batch[right], labels[right], known)


def scores(model: nn.Module, question: Question, maps: Maps, removed: int) -> dict[str, float]:
    """Return all figures of some maps; pixels are removed from the first `removed` images."""
    found: dict[str, float] = {}
    if question.masks is not None:
        found["pointing"] = pointing_game(maps, question.masks).hits / len(maps)
        found["energy"] = float(energy_inside(maps, question.masks).mean())
    few = question.batch[:removed], maps[:removed], question.classes[:removed]
    found["road"], found["road_low"], found["road_high"] = mean_interval(road(model, *few, seed=0))
    deletion, insertion = deletion_insertion(model, *few)
    return found | {"deletion": float(deletion.mean()), "insertion": float(insertion.mean())}


def main() -> None:
    """Measure and tell of every candidate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="+")
    parser.add_argument("--study", default=".demo", help="folder with artifacts/")
    parser.add_argument("--images", type=int, default=300, help="correct images")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--last", type=int, default=99, help="how many of the last layers")
    parser.add_argument("--removed", type=int, default=60, help="of them for ROAD and deletion")
    parser.add_argument("--csv", type=Path, help="file for the table, beside what is printed")
    options = parser.parse_args()
    csv = options.csv and options.csv.absolute()
    os.chdir(options.study)
    tables = []
    data, device = load_prepared(), pick_device()
    for name in options.model:
        model, origin = load_model(Path(f"artifacts/{name}/model.safetensors"), device)
        question = ask(model, origin, data.test, data.test_masks, options.images)
        forgetful = candidates(
            with_random_weights(origin, device, seed=0), options.last, options.methods
        )
        rows = []
        for (method, layer), explain in tqdm(
            candidates(model, options.last, options.methods).items(), disable=None, leave=False
        ):
            maps = question.maps(explain)
            figures = scores(model, question, maps, options.removed)
            forgotten = question.maps(forgetful[method, layer], options.removed)
            alike = rank_correlation(maps[: options.removed], forgotten)
            figures["alike"] = float(alike.mean())
            rows.append({"method": method, "layer": layer, "grid": maps.shape[-1]} | figures)
        plain = np.zeros((len(question.batch), GRID, GRID), np.float32)
        ignorant = {
            "random": random_maps(plain, np.random.default_rng(0)),
            "centre": centre_maps(plain),
        }
        for method, maps in ignorant.items():
            figures = scores(model, question, maps, options.removed)
            rows.append({"method": method, "layer": "", "grid": GRID} | figures)
        table = pd.DataFrame(rows).round(3)
        print(f"## {name}\n\n{table.to_string(index=False)}\n", flush=True)
        tables.append(table.assign(model=name)[["model", *table.columns]])
    if csv:
        write_csv(csv, pd.concat(tables))


if __name__ == "__main__":
    main()
