"""Tables come back as they were written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.evaluation.metrics import class_table
from cifarpipe.results.tables import figures_table, read_figures, read_table
from cifarpipe.store.outputs import write_csv

NAMES = ["007", "1e5", "NaN", "", "a,b", 'say "so"', "two\nlines", "a\rreturn", "both\r\n", " "]


@pytest.mark.parametrize("first", range(len(NAMES)))
def test_names_stay_what_they_are(first: int, tmp_path: Path) -> None:
    names = NAMES[first:] + NAMES[:first]
    table = pd.DataFrame({"index": range(len(names)), "true": names, "confidence": 0.5})
    write_csv(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table)


def test_names_that_all_look_like_numbers_stay_text(tmp_path: Path) -> None:
    table = class_table(np.eye(3, dtype=np.int64), ["007", "08", "1e3"])
    write_csv(tmp_path / "classes.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "classes.csv"), table)


FIGURES = {
    "explained": 1000,
    "road_random": 0.07,
    "road": 0.58,
    "road_over_random": 0.51,
    "road_over_random_low": 0.407,
    "pointing_game_images": 828,
    "pointing_game": 1e-05,
    "alone_low": -0.0,
    "count": 0,
}


def test_figures_are_rows_with_what_belongs_to_them() -> None:
    table = figures_table(FIGURES).set_index("figure")
    assert table.index.tolist() == [
        "explained", "road", "road_over_random", "pointing_game", "alone_low", "count",
    ]  # fmt: skip
    assert table.loc["road"].tolist() == ["0.58", "", "", "0.07", "", ""]
    assert table.loc["road_over_random", ["value", "low"]].tolist() == ["0.51", "0.407"]
    assert table.loc["pointing_game", "images"] == "828"


def test_figures_come_back_as_they_were(tmp_path: Path) -> None:
    write_csv(tmp_path / "gradcam.csv", figures_table(FIGURES))
    found = read_figures(tmp_path / "gradcam.csv")
    assert found == FIGURES
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in FIGURES.items()
    }
