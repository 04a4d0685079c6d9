"""Compare methods and layers for explanations: `python -m benchmarks.explanations MODEL …`.

Run it in the project root after `make demo`, or give `--study` a folder that has models in
artifacts/. Every candidate is evaluated on correct test images of that study. Prints a table for
each model, like those of docs/explanations/. Column `randomised` is the absolute rank correlation
with the maps of random weights; `random` and `centre` are uninformative baselines.
"""

import argparse
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.transformer_maps import Transformer, balanced, legrad
from cifarpipe.config.reader import load_params
from cifarpipe.explanations.baselines import centre_maps, random_maps
from cifarpipe.explanations.complexity import sparseness
from cifarpipe.explanations.faithfulness import deletion_insertion, road, saco
from cifarpipe.explanations.gradcam import GRAD_CAM_METHODS, class_activation_maps
from cifarpipe.explanations.localisation import energy_inside, pointing_game
from cifarpipe.explanations.methods import ATTENTION_METHODS, MakeMaps, map_maker
from cifarpipe.explanations.randomisation import randomised_network, rank_correlation
from cifarpipe.models.compact_ln import Block as CompactBlock
from cifarpipe.models.compact_ln import CompactLN
from cifarpipe.models.convmixer import ConvMixer
from cifarpipe.models.resnet18_ln import ResNet18LN
from cifarpipe.models.vit import Block, ViT
from cifarpipe.models.vit_conv import ViTConv
from cifarpipe.networks.checkpoint import Origin, load_model
from cifarpipe.networks.devices import pick_device
from cifarpipe.networks.normalize import normalize
from cifarpipe.results.intervals import mean_interval
from cifarpipe.results.maps import Maps
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split, load_prepared

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

BATCH = 50  # images explained at a time
GRID = 8  # side of the uninformative maps


def layers(model: "Classifier") -> dict[str, nn.Module]:
    """Return the candidate layers by name, from first to last."""
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
                found.popitem()  # after the last attention only the class token is used
            return found
        case ViTConv():
            return {f"ReLU {i}": model.stem[place] for i, place in enumerate((2, 5), 1)}
        case CompactLN():
            blocks = [layer for layer in model.layers if isinstance(layer, CompactBlock)]
            return {
                f"{kind} {number}": layer
                for number, block in enumerate(blocks, 1)
                for kind, layer in (("norm", block.norm), ("GELU", block.mlp[1]), ("block", block))
            }
        case ConvMixer():
            return {f"block {i}": block for i, block in enumerate(model.blocks, 1)}
        case ResNet18LN():
            return {f"stage {i}": stage for i, stage in enumerate(model.stages, 1)}
    raise TypeError(type(model))


def candidates(
    model: "Classifier", last: int, methods: list[str]
) -> dict[tuple[str, str], MakeMaps]:
    """Return functions that compute maps, by method and layer.

    Args:
        model: In evaluation mode.
        last: How many of the last layers.
        methods: Of grad-cam; the methods of attention are always included.
    """
    found: dict[tuple[str, str], MakeMaps] = {}
    for name, layer in list(layers(model).items())[-last:]:
        for method in methods:
            found[method, name] = partial(
                class_activation_maps, model, layer, model.cam_map, method=method
            )
    if isinstance(model, Transformer):
        for method in sorted(ATTENTION_METHODS):
            found[method, "all"] = map_maker(model, method)
        found["legrad", "all"] = partial(legrad, model)
        for method in ("gradcam", "hirescam", "layercam", "gradient_attention"):
            found[f"balanced {method}", "own"] = balanced(map_maker(model, method), model)
    return found


@dataclass(frozen=True)
class Sample:
    """Images whose predictions are correct."""

    batch: Tensor
    """`[N, 3, S, S]` normalised."""
    classes: Tensor
    """`[N]`, true and predicted."""
    masks: NDArray[np.bool_] | None
    """`[N, S, S]`, true on the object, if known."""

    def maps(self, make: MakeMaps, count: int | None = None) -> Maps:
        """Return the maps of the first `count` images, or of all."""
        parts = zip(self.batch[:count].split(BATCH), self.classes[:count].split(BATCH), strict=True)
        return np.concatenate([make(*part) for part in parts])


def correct_sample(
    model: nn.Module, origin: Origin, split: Split, masks: NDArray[np.bool_] | None, count: int,
    *, seed: int,
) -> Sample:  # fmt: skip
    """Return `count` random images that the network classifies correctly.

    As few of them as possible are among those of the quality metrics in a report with this `seed`.
    """
    device = next(model.parameters()).device
    mean, std = origin.normalization(device)
    # Of this order the report takes the first ones.
    chosen = np.random.default_rng(seed).permutation(len(split))[::-1][: 4 * count]
    images = torch.from_numpy(np.array(split.images[chosen])).to(device)
    labels = torch.from_numpy(np.array(split.labels[chosen]))
    batch = normalize(images, mean, std)
    with torch.no_grad():
        predicted = torch.cat([model(part) for part in batch.split(BATCH)]).argmax(1).cpu()
    correct = (predicted == labels).nonzero()[:count, 0]
    known = None if masks is None else np.array(masks[chosen])[correct.numpy()]
    return Sample(batch[correct], labels[correct], known)


def quality(model: nn.Module, sample: Sample, maps: Maps, removed: int) -> dict[str, float]:
    """Return all metrics of some maps; pixels are removed from the first `removed` images."""
    found: dict[str, float] = {}
    if sample.masks is not None:
        found["pointing"] = float(pointing_game(maps, sample.masks).hits.mean())
        found["energy"] = float(energy_inside(maps, sample.masks).mean())
    few = sample.batch[:removed], maps[:removed], sample.classes[:removed]
    found["road"], found["road_low"], found["road_high"] = mean_interval(road(model, *few, seed=0))
    found["saco"], found["saco_low"], found["saco_high"] = mean_interval(saco(model, *few, seed=0))
    deletion, insertion = deletion_insertion(model, *few, seed=0)
    found |= {"deletion": float(deletion.mean()), "insertion": float(insertion.mean())}
    return found | {"sparseness": float(sparseness(maps).mean())}


def compare(name: str, options: argparse.Namespace) -> pd.DataFrame:
    """Return a row for each candidate and baseline of one model."""
    data, device = load_prepared(), pick_device()
    model, origin = load_model(Path(f"artifacts/{name}/model.safetensors"), device)
    seed = load_params().gradcam.seed
    sample = correct_sample(model, origin, data.test, data.test_masks, options.images, seed=seed)
    randomised = randomised_network(origin, device, seed=0)
    of_randomised = candidates(randomised, options.last, options.methods)
    of_model = candidates(model, options.last, options.methods)
    rows = []
    for (method, layer), make in tqdm(of_model.items(), disable=None, leave=False):
        maps = sample.maps(make)
        metrics = quality(model, sample, maps, options.removed)
        others = sample.maps(of_randomised[method, layer], options.removed)
        correlation = rank_correlation(maps[: options.removed], others)
        metrics["randomised"] = float(np.nanmean(np.abs(correlation)))
        rows.append({"method": method, "layer": layer, "grid": maps.shape[-1]} | metrics)
    shape = np.zeros((len(sample.batch), GRID, GRID), np.float32)
    baselines = {
        "random": random_maps(shape, np.random.default_rng(0)),
        "centre": centre_maps(shape),
    }
    for baseline, maps in baselines.items():
        metrics = quality(model, sample, maps, options.removed)
        rows.append({"method": baseline, "layer": "", "grid": GRID} | metrics)
    return pd.DataFrame(rows).round(3)


def main() -> None:
    """Compare the candidates of some models, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="+")
    parser.add_argument("--study", default=".demo", help="folder with artifacts/")
    parser.add_argument("--images", type=int, default=300, help="correct images to explain")
    parser.add_argument("--methods", nargs="+", default=list(GRAD_CAM_METHODS), help="of grad-cam")
    parser.add_argument("--last", type=int, default=99, help="how many of the last layers")
    parser.add_argument("--removed", type=int, default=60, help="images for ROAD and deletion")
    parser.add_argument("--csv", type=Path, help="file for all tables, besides printing them")
    options = parser.parse_args()
    csv = options.csv and options.csv.absolute()
    os.chdir(options.study)
    tables = []
    for name in options.model:
        table = compare(name, options)
        print(f"## {name}\n\n{table.to_string(index=False)}\n", flush=True)
        tables.append(table.assign(model=name)[["model", *table.columns]])
    if csv:
        write_csv(csv, pd.concat(tables))


if __name__ == "__main__":
    main()
