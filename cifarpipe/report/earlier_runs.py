"""Curves of earlier runs, from the CSV files that `report.baselines` names.

Imports nothing slow: the stage `check`, which DVC runs every time, checks these files.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CURVES = ("train_acc", "train_loss", "test_acc", "test_loss")


def check_baselines(files: Mapping[str, str]) -> None:
    """Check that each file is a table with a column `epoch` and at least one of `CURVES`.

    Args:
        files: Path for each model.

    Raises:
        UserError: Some are not; all of them are listed.
    """
    problems = {name: _problem(Path(path)) for name, path in files.items()}
    errors = [
        f"  - report.baselines.{name}: {files[name]}: {problem}"
        for name, problem in problems.items()
        if problem is not None
    ]
    if errors:
        listed = "\n".join(errors)
        raise UserError(
            f"some files of earlier runs can't be used:\n{listed}\n"
            f"Expected: CSV with a column epoch and at least one of {', '.join(CURVES)}, as in "
            f"data/baselines/. Correct them or params.yaml."
        )


def _problem(path: Path) -> str | None:
    """Return why a file can't be used; None if it can."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return getattr(error, "strerror", None) or "not a CSV file in UTF-8"
    if not rows:
        return "has no rows"
    columns = [name for name in ("epoch", *CURVES) if name in rows[0]]
    if "epoch" not in columns or len(columns) == 1:
        return f"has the columns {', '.join(map(str, rows[0]))}"
    for line, row in enumerate(rows, start=2):
        for name in columns:
            if not _is_number(row[name], may_be_empty=name != "epoch"):
                return f"line {line}: {name} is {row[name]!r}, not a number"
    return None


def _is_number(text: str | None, *, may_be_empty: bool) -> bool:
    if not text:
        return may_be_empty
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_baselines(files: Mapping[str, str]) -> "dict[str, pd.DataFrame]":
    """Return the curves with our column names, epochs counted from 1.

    They were measured on the test images after every epoch, and are drawn over our validation
    curves.

    Args:
        files: Path for each model.

    Raises:
        UserError: As by `check_baselines`.
    """
    check_baselines(files)

    import pandas as pd

    curves = {}
    for name, path in files.items():
        table = pd.read_csv(path).rename(columns={"test_acc": "val_acc", "test_loss": "val_loss"})
        # Some count epochs from 0.
        curves[name] = table.assign(epoch=table.epoch + (1 if table.epoch.min() == 0 else 0))
    return curves
