"""Training images in the page: neighbours of test images, and labels worth checking."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cifarpipe.report.sprites import Positions, encode, make_sprite, max_images, sprite_columns
from cifarpipe.report.study import ModelResults
from cifarpipe.results.neighbours import Neighbours
from cifarpipe.store.prepared import Split

MOST = 600  # in the page
QUALITY = 75
ABSENT = -1


def choose_training_images(
    results: Sequence[ModelResults], ranked: Positions, first: Positions, size: int
) -> Positions:
    """Choose the training images that the page contains.

    First those that it shows anyway; then, for one test image after the other, those nearest to it
    in the features of each model that predicts it wrongly (of the best model, if none does).

    Args:
        results: Of all models, the best first.
        ranked: Positions in the test split, the most interesting first.
        first: Positions in the train split of the images that the page shows anyway.
        size: Of the images, in pixels.

    Returns:
        Positions in the train split, ascending.
    """
    most = min(MOST, max_images(size))
    chosen = dict.fromkeys(first.tolist()[:most])
    is_correct = [model.is_correct for model in results]
    for position in ranked.tolist():
        wrong = [m for m, hits in zip(results, is_correct, strict=True) if not hits[position]]
        for model in wrong or results[:1]:
            nearest = dict.fromkeys(model.neighbours.nearest[position].tolist())
            if len(chosen.keys() | nearest.keys()) > most:
                return np.array(sorted(chosen), np.int64)
            chosen |= nearest
    return np.array(sorted(chosen), np.int64)


@dataclass(frozen=True)
class TrainingImages:
    """The training images that the page contains."""

    split: Split
    shown: Positions
    """Positions in the train split, ascending."""

    @cached_property
    def _sprite(self) -> str:
        return make_sprite(self.split.images[self.shown], lossless=False, quality=QUALITY)

    def pack(self) -> dict[str, Any]:
        """Return pictures, labels and indices as values for JSON."""
        size = self.split.images.shape[1]
        return {
            "shown": self.shown.tolist(),
            "index": self.split.index[self.shown].tolist(),
            "labels": self.split.labels[self.shown].tolist(),
            "size": size,
            "columns": sprite_columns(size),
            "sprite": self._sprite,
        }

    def pack_neighbours(self, neighbours: Neighbours, tests: Positions) -> dict[str, Any]:
        """Return a model's neighbours of these test images: numbers of pictures, similarities."""
        nearest = neighbours.nearest[tests].astype(np.int64)
        places = np.searchsorted(self.shown, nearest).clip(max=max(len(self.shown) - 1, 0))
        found = self.shown[places] == nearest if len(self.shown) else np.zeros(nearest.shape, bool)
        percent = np.rint(100 * neighbours.similarity[tests]).clip(-127, 127)
        return {
            "nearest": encode(np.where(found, places, ABSENT).astype(np.int16)),
            "similarity": encode(percent.astype(np.int8)),
            "neighbours": nearest.shape[1],
        }
