"""Explain the predictions table: where a network saw what it predicts, and what was true."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.explanations.attention import (
    ATTENTION_METHODS,
    Attentive,
    attention_rollout,
    gradient_attention,
)
from cifarpipe.explanations.gradcam import Maps, class_activation_maps
from cifarpipe.models.build import as_classifier
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.normalize import normalize
from cifarpipe.results.maps import CLASS_AGNOSTIC
from cifarpipe.store.prepared import Split

# A stored prediction may differ from the one computed here only where two classes are as good as
# tied: rounding differs with the size of the batch.
TIE = 1e-3  # in logits
MakeMaps = Callable[[Tensor, Tensor], Maps]


@dataclass(frozen=True)
class Explained:
    """Raw maps of some images, in the order of their table."""

    index: NDArray[np.int64]
    """`[N]` original index in the test split."""
    predicted: Maps
    """`[N, h, w]` evidence for the predicted class."""
    true: Maps
    """`[N, h, w]` evidence for the true class; comparable with `predicted` of the same image.

    The same as `predicted` by a method that knows no class.
    """

    def of(self, index: NDArray[np.int64]) -> "Explained":
        """Return the maps of these images, in this order.

        Raises:
            KeyError: One of them was not explained.
        """
        order = np.argsort(self.index)
        places = np.searchsorted(self.index, index, sorter=order).clip(max=len(order) - 1)
        chosen = order[places]
        if not np.array_equal(self.index[chosen], index):
            raise KeyError("an image that was not explained")
        return Explained(index, self.predicted[chosen], self.true[chosen])


def map_maker(model: nn.Module, method: str) -> MakeMaps:
    """Return what makes raw maps `[N, h, w]` of a normalised batch and a class for each image.

    Args:
        model: As `build_model` gives it, in evaluation mode.
        method: As in params.yaml.

    Raises:
        ValueError: A method by attention is asked of a network that has none.
    """
    if method in ATTENTION_METHODS:
        if not hasattr(model, "attentions"):
            raise ValueError(f"{method} needs a network with attention")
        attentive = cast(Attentive, model)
        if method == "attention_rollout":
            return lambda batch, _classes: attention_rollout(attentive, batch)
        return lambda batch, classes: gradient_attention(attentive, batch, classes)
    layout = as_classifier(model)
    return lambda batch, classes: class_activation_maps(
        model, layout.cam_layer, layout.cam_map, batch, classes, method=method
    )


@dataclass(frozen=True)
class Explainer:
    """A network with what it needs to explain its own predictions."""

    model: nn.Module
    """As `load_model` gives it, in evaluation mode."""
    origin: Origin
    """Of its weights."""
    method: str
    """As in params.yaml."""
    batch_size: int
    """Images at a time."""

    def normalized(self, images: NDArray[np.uint8]) -> Tensor:
        """Return pictures `[N, S, S, 3]` as the network's input, on its device."""
        device = next(self.model.parameters()).device
        mean, std = (
            torch.tensor(values, device=device) for values in (self.origin.mean, self.origin.std)
        )
        return normalize(torch.from_numpy(np.array(images)).to(device), mean, std)

    def labels(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the label of each class name."""
        labels = {name: label for label, name in enumerate(self.origin.classes)}
        return np.array([labels[name] for name in names], np.int64)

    def predict(self, batch: Tensor) -> Tensor:
        """Return the logits `[N, classes]` of normalised images, however many."""
        return torch.cat([self.model(some) for some in batch.split(self.batch_size)])

    def maps(self, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> Maps:
        """Return the raw map `[N, h, w]` of a class for each picture `[N, S, S, 3]`."""
        make = map_maker(self.model, self.method)
        parts = [
            make(self.normalized(images[some]), torch.from_numpy(classes[some]))
            for some in _batches(len(images), self.batch_size)
        ]
        return np.concatenate(parts) if parts else _NO_MAPS

    def explain(self, split: Split, rows: pd.DataFrame, progress: str | None = None) -> Explained:
        """Compute the maps of the predicted and of the true class for each of `rows`.

        Args:
            split: Holds the images.
            rows: Of the predictions table.
            progress: Name of a bar to show on a terminal.

        Raises:
            RuntimeError: The network does not predict what the table says.
        """
        index = rows["index"].to_numpy(np.int64)
        predicted, true = (self.labels(rows[which]) for which in ("predicted", "true"))
        places = split.positions(index)
        if not np.array_equal(split.labels[places], true):
            raise RuntimeError("the table's true classes are not those of the test split")
        of_predicted, of_true = [], []
        hidden = True if progress is None else None  # None: shown on a terminal only
        parts = _batches(len(rows), self.batch_size)
        for some in tqdm(parts, desc=progress, unit=" batches", disable=hidden, leave=False):
            images = split.images[places[some]]
            self._check(images, predicted[some], index[some])
            maps = self.maps(images, predicted[some])
            of_predicted.append(maps)
            both = maps.copy()
            other = (predicted[some] != true[some]) & (self.method not in CLASS_AGNOSTIC)
            if other.any():
                both[other] = self.maps(images[other], true[some][other])
            of_true.append(both)
        if not parts:
            return Explained(index, _NO_MAPS, _NO_MAPS)
        return Explained(index, np.concatenate(of_predicted), np.concatenate(of_true))

    @torch.no_grad()
    def _check(
        self, images: NDArray[np.uint8], predicted: NDArray[np.int64], index: NDArray[np.int64]
    ) -> None:
        logits = self.model(self.normalized(images)).cpu()
        short = logits.amax(dim=1) - logits.gather(1, torch.from_numpy(predicted)[:, None])[:, 0]
        if (wrong := (short > TIE).numpy()).any():
            raise RuntimeError(
                f"the model no longer predicts what the table says, e.g. for test image "
                f"{index[wrong][0]}: model and predictions are not of one run"
            )


_NO_MAPS: Maps = np.empty((0, 1, 1), np.float32)


def _batches(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
