"""Curves of baseline runs, from the CSV files that `report.baselines` names.

Imports nothing slow: the stage `check`, which DVC runs every time, checks these files.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# Columns that are read, and our names of them.
CURVES = {
    "train_acc": "train_acc",
    "train_loss": "train_loss",
    "test_acc": "val_acc",
    "test_loss": "val_loss",
}
Curve = dict[str, list[float]]


def check_baselines(files: Mapping[str, str]) -> None:
    """Check that each file is a table with a column `epoch` and at least one of `CURVES`.

    Args:
        files: Path for each model.

    Raises:
        UserError: Some are not; all of them are listed.
    """
    _read_all(files)


def read_baselines(files: Mapping[str, str]) -> "dict[str, pd.DataFrame]":
    """Return `epoch`, counted from 1, and the curves of each file by our names.

    They were measured on the test images after every epoch, and are drawn over our validation
    curves.

    Args:
        files: Path for each model.

    Raises:
        UserError: As by `check_baselines`.
    """
    import pandas as pd

    tables = {}
    for name, curve in _read_all(files).items():
        first = 1 if min(curve["epoch"]) == 0 else 0  # some count epochs from 0
        tables[name] = pd.DataFrame(curve)
        tables[name]["epoch"] += first
    return tables


def _read_all(files: Mapping[str, str]) -> dict[str, Curve]:
    """Read all files, or raise one `UserError` about those that can't be used."""
    read, errors = {}, []
    for name, path in files.items():
        try:
            read[name] = _read(Path(path))
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            errors.append(f"  - report.baselines.{name}: {path}: {reason}")
    if errors:
        listed = "\n".join(errors)
        raise UserError(
            f"some baseline files can't be used:\n{listed}\n"
            f"Expected: CSV with a column epoch and at least one of {', '.join(CURVES)}, as in "
            f"data/baselines/. Correct them or params.yaml."
        )
    return read


def _read(path: Path) -> Curve:
    """Return the columns that are known, by our names; an empty value is NaN.

    Raises:
        OSError, ValueError, csv.Error: The file can't be used.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = reader.fieldnames or []
        known = [name for name in ("epoch", *CURVES) if name in names]
        if "epoch" not in known or len(known) == 1:
            raise ValueError(f"has the columns {', '.join(names)}" if names else "is empty")
        curve: Curve = {CURVES.get(name, name): [] for name in known}
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} does not have {len(names)} values")
            for name in known:
                number = _number(row[name])
                if number is None or (name == "epoch" and not math.isfinite(number)):
                    raise ValueError(
                        f"line {reader.line_num}: {name} is {row[name]!r}, not a number"
                    )
                curve[CURVES.get(name, name)].append(number)
    if not curve["epoch"]:
        raise ValueError("has no rows")
    return curve


def _number(text: str) -> float | None:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return None
