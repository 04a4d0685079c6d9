"""Tables on disk whose names stay text, whatever they look like."""

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import pandas as pd

from cifarpipe.config.errors import UserError

# What stands beside a figure `x` under names like `x_low`.
BESIDE = ("low", "high", "random", "centre", "images")
# Columns that hold text: a class may be called 007.
TEXT = dict.fromkeys(("true", "predicted", "file", "class"), str)


def read_table(path: Path | TextIO) -> pd.DataFrame:
    """Read a predictions table, a choice of its rows or a table per class.

    Raises:
        UserError: It is damaged.
    """
    try:
        # Only that ends a line, since a name may hold a carriage return.
        return pd.read_csv(path, dtype=TEXT, keep_default_na=False, lineterminator="\n")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}).\nDelete it and run `dvc repro`.") from None


def figures_table(figures: Mapping[str, float | int]) -> pd.DataFrame:
    """Put figures into rows: its value, the ends of its interval, and what it is compared with.

    Args:
        figures: By name; `x_low` stands in the row of `x`.

    Returns:
        Columns `figure`, `value` and `BESIDE`, as text; empty where there is no such figure.
    """
    columns = ("figure", "value", *BESIDE)
    rows: dict[str, dict[str, str]] = {}
    for name, value in figures.items():
        of, _, what = name.rpartition("_")
        if what not in BESIDE or of not in figures:
            of, what = name, "value"
        row = rows.setdefault(of, dict.fromkeys(columns, "") | {"figure": of})
        row[what] = str(value)
    return pd.DataFrame(list(rows.values()), columns=columns)


def read_figures(path: Path | TextIO) -> dict[str, float | int]:
    """Return the figures of such a table, by name."""
    figures: dict[str, float | int] = {}
    for row in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"):
        for what, text in row.items():
            if what != "figure" and text:
                name = row["figure"] if what == "value" else f"{row['figure']}_{what}"
                figures[name] = int(text) if text.isdigit() else float(text)
    return figures
