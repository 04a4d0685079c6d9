"""Tables come back as they were written."""

from pathlib import Path

import pandas as pd
import pytest

from cifarpipe.outputs import write_csv
from cifarpipe.tables import read_table

NAMES = ["007", "1e5", "NaN", "", "a,b", 'say "so"', "two\nlines", "a\rreturn", "both\r\n", " "]


@pytest.mark.parametrize("first", range(len(NAMES)))
def test_names_stay_what_they_are(first: int, tmp_path: Path) -> None:
    names = NAMES[first:] + NAMES[:first]
    table = pd.DataFrame({"index": range(len(names)), "true": names, "confidence": 0.5})
    write_csv(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)
