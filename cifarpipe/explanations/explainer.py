"""Explain predictions: where a network finds evidence for the predicted and the true class."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.explanations.methods import CLASS_AGNOSTIC, map_maker
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.normalize import normalize
from cifarpipe.results.maps import Explanations, Maps
from cifarpipe.store.prepared import Split

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

# A stored prediction may differ from the one computed here only where two logits are almost equal:
# rounding depends on the batch size.
TIE = 1e-3  # in logits
NO_MAPS: Maps = np.empty((0, 1, 1), np.float32)


@dataclass(frozen=True)
class Explainer:
    """A network with what it takes to explain its predictions."""

    model: "Classifier"
    """As `load_model` returns it, in evaluation mode."""
    origin: Origin
    """Of its weights."""
    method: str
    """As in params.yaml."""
    batch_size: int
    """Images at a time."""

    @property
    def class_specific(self) -> bool:
        """Whether each map is about one class."""
        return self.method not in CLASS_AGNOSTIC

    def normalized(self, images: NDArray[np.uint8]) -> Tensor:
        """Return images `[N, S, S, 3]` as the network's input, on its device."""
        device = next(self.model.parameters()).device
        mean, std = self.origin.normalization(device)
        return normalize(torch.from_numpy(np.array(images)).to(device), mean, std)

    def labels(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the label of each class name."""
        labels = {name: label for label, name in enumerate(self.origin.classes)}
        return np.array([labels[name] for name in names], np.int64)

    def predict(self, batch: Tensor) -> Tensor:
        """Return logits `[N, classes]` of normalised images, in batches."""
        return torch.cat([self.model(part) for part in batch.split(self.batch_size)])

    def maps(self, images: NDArray[np.uint8], classes: NDArray[np.int64]) -> Maps:
        """Return a raw map `[N, h, w]` of each image `[N, S, S, 3]` for its target class."""
        return self.maps_of(self.normalized(images), torch.from_numpy(classes))

    def maps_of(self, batch: Tensor, classes: Tensor) -> Maps:
        """Return a raw map `[N, h, w]` of each normalised image for its target class."""
        make = map_maker(self.model, self.method)
        parts = [make(batch[part], classes[part]) for part in _batches(len(batch), self.batch_size)]
        return np.concatenate(parts) if parts else NO_MAPS

    def explain(
        self, split: Split, predictions: pd.DataFrame, progress: str | None = None
    ) -> Explanations:
        """Compute the maps of the predicted and of the true class for each row.

        Args:
            split: Holds the images.
            predictions: Rows of the predictions table.
            progress: Label of a progress bar.
        """
        index = predictions["index"].to_numpy(np.int64)
        predicted, true = (self.labels(predictions[of]) for of in ("predicted", "true"))
        positions = split.positions(index)
        maps_of_predicted, maps_of_true = [], []
        parts = _batches(len(predictions), self.batch_size)
        hidden = True if progress is None else None  # None: shown on a terminal only
        for part in tqdm(parts, desc=progress, unit=" batches", disable=hidden, leave=False):
            images = split.images[positions[part]]
            maps = self.maps(images, predicted[part])
            maps_of_predicted.append(maps)
            both = maps.copy()
            other = (predicted[part] != true[part]) & self.class_specific
            if other.any():
                both[other] = self.maps(images[other], true[part][other])
            maps_of_true.append(both)
        if not parts:
            return Explanations(self.method, index, NO_MAPS, NO_MAPS, self.class_specific)
        both_kinds = np.concatenate(maps_of_predicted), np.concatenate(maps_of_true)
        return Explanations(self.method, index, *both_kinds, self.class_specific)

    def check(self, split: Split, predictions: pd.DataFrame, logits: Tensor) -> None:
        """Check that the table's predictions are those of the network.

        Args:
            split: Holds the images.
            predictions: Rows of the predictions table.
            logits: `[N, classes]` of the whole split.

        Raises:
            UserError: They differ.
        """
        index = predictions["index"].to_numpy(np.int64)
        of_rows = logits.cpu()[split.positions(index)]
        predicted = torch.from_numpy(self.labels(predictions.predicted))
        short = of_rows.amax(dim=1) - of_rows.gather(1, predicted[:, None])[:, 0]
        if (wrong := (short > TIE).numpy()).any():
            name = self.origin.name
            raise UserError(
                f"{name} does not predict what its predictions.csv says, e.g. of test image "
                f"{index[wrong][0]}: its weights and predictions are of different runs.\n"
                f"Run `dvc repro evaluate@{name}`."
            )


def _batches(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
