"""Explain rows of the predictions table: the same images, in the same order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from cifarpipe.checkpoint import Origin
from cifarpipe.data.prepared import Split
from cifarpipe.evaluation import wilson_interval
from cifarpipe.gradcam import Maps, class_activation_maps, pointing_game, without_evidence
from cifarpipe.models.build import as_classifier
from cifarpipe.normalize import normalize
from cifarpipe.outputs import atomic_path

# A stored prediction may differ from the one computed here only where two classes are as good as
# tied: rounding differs with the size of the batch.
TIE = 1e-3  # in logits


@dataclass(frozen=True)
class Explained:
    """Raw signed maps of some images, in the order of their table."""

    index: NDArray[np.int64]
    """`[N]` original index in the test split."""
    predicted: Maps
    """`[N, h, w]` evidence for the predicted class."""
    true: Maps
    """`[N, h, w]` evidence for the true class; comparable with `predicted` of the same image."""


def explain(
    model: nn.Module, origin: Origin, split: Split, rows: pd.DataFrame, batch_size: int
) -> Explained:
    """Compute the maps of the predicted and of the true class for each of `rows`.

    Args:
        model: As `load_model` gives it, in evaluation mode.
        origin: Of its weights.
        split: Holds the images.
        rows: Of the predictions table.
        batch_size: Images at a time.

    Raises:
        RuntimeError: The model does not predict what the table says.
    """
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device) for values in (origin.mean, origin.std))
    layout = as_classifier(model)
    labels = {name: label for label, name in enumerate(origin.classes)}
    index = rows["index"].to_numpy(np.int64)
    images = np.array(split.images[split.positions(index)])
    asked = {
        which: torch.tensor([labels[name] for name in rows[which]], dtype=torch.int64)
        for which in ("predicted", "true")
    }
    _check_truth(split, index, asked["true"])
    maps: dict[str, list[Maps]] = {"predicted": [], "true": []}
    for start in range(0, len(rows), batch_size):
        some = slice(start, start + batch_size)
        batch = normalize(torch.from_numpy(images[some]).to(device), mean, std)
        _check_predictions(model, batch, asked["predicted"][some], index[some])
        for which, classes in asked.items():
            maps[which].append(
                class_activation_maps(model, layout.cam_layer, layout.cam_map, batch, classes[some])
            )
    joined = {which: np.concatenate(parts) if parts else _NO_MAPS for which, parts in maps.items()}
    return Explained(index, joined["predicted"], joined["true"])


_NO_MAPS: Maps = np.empty((0, 1, 1), np.float32)


def _check_truth(split: Split, index: NDArray[np.int64], labels: torch.Tensor) -> None:
    if not np.array_equal(split.labels[split.positions(index)], labels.numpy()):
        raise RuntimeError("the table's true classes are not those of the test split")


@torch.no_grad()
def _check_predictions(
    model: nn.Module, batch: torch.Tensor, predicted: torch.Tensor, index: NDArray[np.int64]
) -> None:
    logits = model(batch).cpu()
    short = logits.amax(dim=1) - logits.gather(1, predicted[:, None])[:, 0]
    if (wrong := (short > TIE).numpy()).any():
        raise RuntimeError(
            f"the model no longer predicts what the table says, e.g. for test image "
            f"{index[wrong][0]}: model and predictions are not of one run"
        )


def save_maps(path: Path, explained: Mapping[str, Explained]) -> None:
    """Write all raw maps to one `.npz`: `<set>_index`, `<set>_predicted` and `<set>_true`."""
    arrays = {
        f"{name}_{field}": getattr(maps, field)
        for name, maps in explained.items()
        for field in ("index", "predicted", "true")
    }
    with atomic_path(path) as partial:
        np.savez(partial, **arrays)


def evidence_figures(explained: Mapping[str, Explained]) -> dict[str, float | int]:
    """Count the maps of the predicted class that hold no evidence for it, per set of images."""
    return {
        f"without_evidence_{name}": int(without_evidence(maps.predicted).sum())
        for name, maps in explained.items()
    }


def pointing_figures(maps: Maps, masks: NDArray[np.bool_]) -> dict[str, float | int]:
    """Return the pointing game's score with its 95% interval beside two that look at nothing.

    Args:
        maps: `[N, h, w]` raw, of the predicted class on correct images.
        masks: `[N, H, W]`, true on the object.
    """
    result = pointing_game(maps, masks)
    low, high = wilson_interval(result.hits, result.images)
    figures = {
        "pointing_game": result.hits / max(result.images, 1),
        "pointing_game_low": low,
        "pointing_game_high": high,
        "pointing_game_centre": result.centre,
        "pointing_game_random": result.random,
    }
    rounded = {name: round(value, 4) for name, value in figures.items()}
    return {"pointing_game_images": result.images, **rounded}
