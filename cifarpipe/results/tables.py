"""Read tables in which names stay text, whatever they look like."""

from pathlib import Path
from typing import TextIO

import pandas as pd

from cifarpipe.config.errors import UserError

# Columns of text: a class may be called 007.
TEXT_COLUMNS = dict.fromkeys(("true", "predicted", "file", "class"), str)


def read_table(path: Path | TextIO) -> pd.DataFrame:
    """Read a predictions table, a selection of its rows, or a table with a row per class.

    Raises:
        UserError: The file is damaged.
    """
    try:
        # Only "\n" ends a line, since a name may contain a carriage return.
        return pd.read_csv(path, dtype=TEXT_COLUMNS, keep_default_na=False, lineterminator="\n")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}).\nDelete it and run `dvc repro`.") from None
