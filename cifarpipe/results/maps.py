"""A model's explanations on disk: the raw maps of all test images, in one `.npz` file."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifarpipe.results.arrays import load_arrays, save_arrays

Maps = NDArray[np.float32]
# Absolute rank correlation below which maps of trained and of random weights differ enough.
MAX_CORRELATION = 0.5


@dataclass(frozen=True)
class Explanations:
    """Raw maps of some test images; maps of one image are comparable with each other."""

    method: str
    """As in `gradcam.method` of params.yaml."""
    index: NDArray[np.int64]
    """`[N]` original index in the test split."""
    predicted: Maps
    """`[N, h, w]` evidence for the predicted class."""
    true: Maps
    """`[N, h, w]` evidence for the true class; equals `predicted` if maps are for any class."""
    class_specific: bool
    """Whether each map is about one class; else it shows what matters to the network for any."""

    def of(self, index: NDArray[np.int64]) -> "Explanations":
        """Return the maps of these images, in this order.

        Args:
            index: `[M]` original indices.

        Raises:
            KeyError: One of them was not explained.
        """
        order = np.argsort(self.index)
        places = np.searchsorted(self.index, index, sorter=order).clip(max=len(order) - 1)
        chosen = order[places]
        if not np.array_equal(self.index[chosen], index):
            raise KeyError("an image that was not explained")
        return replace(self, index=index, predicted=self.predicted[chosen], true=self.true[chosen])


def without_evidence(maps: Maps) -> NDArray[np.bool_]:
    """Return for each map of `[N, h, w]` whether no value in it is above 0."""
    return maps.max(axis=(1, 2)) <= 0


def save_explanations(path: Path, explanations: Explanations) -> None:
    """Write all maps, or nothing."""
    save_arrays(path, vars(explanations))


def load_explanations(path: Path) -> Explanations:
    """Read all maps.

    Raises:
        UserError: The file is missing or damaged, as its checksums show.
    """
    names = [field.name for field in fields(Explanations)]
    method, index, predicted, true, class_specific = load_arrays(path, names)
    return Explanations(str(method), index, predicted, true, bool(class_specific))
