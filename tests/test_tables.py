"""Tables whose class names stay text, whatever they look like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.evaluation.metrics import class_table
from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv

NAMES = ["007", "1e5", "NaN", "", "a,b", 'say "so"', "two\nlines", "a\rreturn", "both\r\n", " "]


@pytest.mark.parametrize("first", range(len(NAMES)))
def test_odd_class_names_are_unchanged(first: int, tmp_path: Path) -> None:
    names = NAMES[first:] + NAMES[:first]
    table = pd.DataFrame({"index": range(len(names)), "true": names, "confidence": 0.5})
    write_csv(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)


def test_numeric_class_names_stay_text(tmp_path: Path) -> None:
    table = class_table(np.eye(3, dtype=np.int64), ["007", "08", "1e3"])
    write_csv(tmp_path / "classes.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "classes.csv"), table)


def test_damaged_table_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('true,predicted\ncat,"dog\n')
    with pytest.raises(UserError, match=r"table.csv is damaged"):
        read_table(path)
