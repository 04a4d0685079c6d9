"""Named arrays on disk, in one `.npz` file with checksums."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cifarpipe.config.errors import UserError
from cifarpipe.results.damage import naming_damaged
from cifarpipe.store.outputs import atomic_path

# What a damaged archive raises; OSError if it points before its own start.
DAMAGED = (BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, OSError)


def save_arrays(path: Path, arrays: dict[str, ArrayLike]) -> None:
    """Write all arrays, or nothing."""
    with atomic_path(path) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read the arrays with these names.

    Raises:
        UserError: The file is missing or damaged, as its checksums show.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro`, or `dvc pull` in a clone.")
    with path.open("rb") as file, naming_damaged(path, DAMAGED), np.load(file) as arrays:
        return [arrays[name] for name in names]
