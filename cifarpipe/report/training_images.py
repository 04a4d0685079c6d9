"""Training images in the page: neighbours of test images, and possible label errors."""

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
WEBP_QUALITY = 75
ABSENT = -1


def choose_training_images(
    results: Sequence[ModelResults], ranked: Positions, first: Positions, size: int
) -> Positions:
    """Choose the training images that the page contains.

    First those that it shows anyway. Then, for one test image after the other, those nearest to it
    in the features of one model: the best that predicts it wrongly, or the best of all if none
    does. At last those in the features of the other models that predict it wrongly.

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
    of_best: list[tuple[ModelResults, int]] = []
    of_others: list[tuple[ModelResults, int]] = []
    for position in ranked.tolist():
        wrong = [m for m, hits in zip(results, is_correct, strict=True) if not hits[position]]
        best, *others = wrong or results[:1]
        of_best.append((best, position))
        of_others += [(model, position) for model in others]
    for model, position in of_best + of_others:
        nearest = dict.fromkeys(model.neighbours.nearest[position].tolist())
        if len(chosen.keys() | nearest.keys()) > most:
            break
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
        return make_sprite(self.split.images[self.shown], lossless=False, quality=WEBP_QUALITY)

    def pack(self) -> dict[str, Any]:
        """Return pictures, labels, indices and files as values for JSON."""
        size = self.split.images.shape[1]
        return {
            "shown": self.shown.tolist(),
            "index": self.split.index[self.shown].tolist(),
            "files": self.split.names(self.shown) if self.split.files else None,
            "labels": self.split.labels[self.shown].tolist(),
            "size": size,
            "columns": sprite_columns(size),
            "sprite": self._sprite,
        }

    def pack_neighbours(
        self, neighbours: Neighbours, tests: Positions, kind: type[np.integer[Any]]
    ) -> dict[str, Any]:
        """Return the nearest training images of test images, in one model's features.

        Args:
            neighbours: Of all test images.
            tests: Positions in the test split.
            kind: Integer type of the labels.

        Returns:
            Values for JSON: of each test image's neighbours, the numbers of their pictures or -1
            (int16), their labels (`kind`) and their cosine similarities in hundredths (int8), each
            as base64; and how many neighbours a test image has.
        """
        nearest = neighbours.nearest[tests].astype(np.int64)
        places = np.searchsorted(self.shown, nearest).clip(max=max(len(self.shown) - 1, 0))
        found = self.shown[places] == nearest if len(self.shown) else np.zeros(nearest.shape, bool)
        percent = np.rint(100 * neighbours.similarity[tests]).clip(-127, 127)
        return {
            "nearest": encode(np.where(found, places, ABSENT).astype(np.int16)),
            "nearestLabels": encode(self.split.labels[nearest].astype(kind)),
            "similarity": encode(percent.astype(np.int8)),
            "neighbours": nearest.shape[1],
        }
