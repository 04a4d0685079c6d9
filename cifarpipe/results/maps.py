"""The raw maps of a model's explanations on disk, in one `.npz`."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import atomic_path

Maps = NDArray[np.float32]
# Methods that ask which places matter to the network, whatever the class.
CLASS_AGNOSTIC = ("eigencam", "attention_rollout")
# What a faulty archive raises; OSError where it names a place before its own beginning.
DAMAGED = (BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, OSError)


def save_maps(path: Path, index: NDArray[np.int64], predicted: Maps, true: Maps) -> None:
    """Write `[N]` original indices and `[N, h, w]` maps of two classes, whole or not at all."""
    with atomic_path(path) as partial:
        np.savez(partial, index=index, predicted=predicted, true=true)


def load_maps(path: Path) -> tuple[Maps, Maps]:
    """Return the maps `[N, h, w]` of the predicted and of the true class.

    Raises:
        UserError: The file is damaged; its checksums tell.
    """
    with path.open("rb") as file:
        try:
            with np.load(file) as maps:
                return maps["predicted"], maps["true"]
        except DAMAGED as error:
            raise UserError(
                f"{path} is damaged ({error}).\nDelete it and run `dvc repro`."
            ) from None
