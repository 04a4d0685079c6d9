"""Read tables in which names stay text, whatever they look like."""

from pathlib import Path
from typing import TextIO

import pandas as pd

from cifarpipe.results.damage import naming_damaged

# Columns of text: a class may be called 007.
TEXT_COLUMNS = dict.fromkeys(("true", "predicted", "file", "class"), str)


def read_table(path: Path) -> pd.DataFrame:
    """Read a predictions table, a selection of its rows, or a table with a row per class.

    Raises:
        UserError: The file is damaged.
    """
    with naming_damaged(path):
        return parse_table(path)


def parse_table(file: Path | TextIO) -> pd.DataFrame:
    """Read a table as `read_table` does; `ValueError` if it is damaged."""
    # Only "\n" ends a line, since a name may contain a carriage return.
    return pd.read_csv(file, dtype=TEXT_COLUMNS, keep_default_na=False, lineterminator="\n")
