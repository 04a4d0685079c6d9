"""Tables on disk whose names stay text, whatever they look like."""

from pathlib import Path
from typing import TextIO

import pandas as pd

# Columns that hold text: a class may be called 007.
TEXT = dict.fromkeys(("true", "predicted", "file", "class"), str)


def read_table(path: Path | TextIO) -> pd.DataFrame:
    """Read a predictions table, a choice of its rows or a table per class."""
    # Only that ends a line, since a name may hold a carriage return.
    return pd.read_csv(path, dtype=TEXT, keep_default_na=False, lineterminator="\n")
