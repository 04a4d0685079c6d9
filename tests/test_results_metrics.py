"""Metrics as a table: written, then read back unchanged."""

import io
import math
from pathlib import Path

import numpy as np
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.results.metrics import (
    COLUMNS,
    Metric,
    Metrics,
    load_metrics,
    metrics_table,
    read_metrics,
    rounded,
)
from cifarpipe.store.outputs import write_csv

METRICS: Metrics = {
    "explained": Metric(1000),
    "road": Metric(0.58, random=0.07, centre=-0.2),
    "road_over_random": Metric(0.51, low=0.407, high=0.62),
    "pointing_game": Metric(1e-05, images=828),
    "zero": Metric(0, low=-0.0, high=0.0),
}


def written(path: Path, metrics: Metrics) -> Path:
    write_csv(path, metrics_table(metrics))
    return path


def test_table_has_a_row_per_metric() -> None:
    table = metrics_table(METRICS)
    assert list(table) == list(COLUMNS) == [
        "metric", "value", "low", "high", "random", "centre", "images",
    ]  # fmt: skip
    assert table.metric.tolist() == list(METRICS)
    rows = table.set_index("metric")
    assert rows.loc["road"].tolist() == ["0.58", "", "", "0.07", "-0.2", ""]
    assert rows.loc["road_over_random"].tolist() == ["0.51", "0.407", "0.62", "", "", ""]
    assert rows.loc["pointing_game"].tolist() == ["1e-05", "", "", "", "", "828"]


def test_written_metrics_are_read(tmp_path: Path) -> None:
    found = read_metrics(written(tmp_path / "metrics.csv", METRICS))
    assert found == METRICS
    for name, metric in METRICS.items():
        for field, value in vars(metric).items():
            assert type(getattr(found[name], field)) is type(value), (name, field)


def test_metrics_are_read_from_open_text() -> None:
    text = metrics_table(METRICS).to_csv(index=False)
    assert read_metrics(io.StringIO(text)) == METRICS


def test_empty_table_is_read(tmp_path: Path) -> None:
    assert read_metrics(written(tmp_path / "metrics.csv", {})) == {}


def test_text_is_no_value(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("metric,value\naccuracy,high\n")
    with pytest.raises(ValueError, match="could not convert string to float: 'high'"):
        read_metrics(tmp_path / "metrics.csv")
    with pytest.raises(UserError, match=r"metrics.csv is damaged .*'high'"):
        load_metrics(tmp_path / "metrics.csv")


def test_rounded_has_four_decimal_places() -> None:
    found = rounded(0.123456, low=0.11111, high=0.13579, random=0.00004, images=7)
    assert found == Metric(0.1235, low=0.1111, high=0.1358, random=0.0, images=7)


@pytest.mark.parametrize("low", [-math.inf, math.nan])
def test_infinite_interval_ends_are_left_out(low: float, tmp_path: Path) -> None:
    found = rounded(0.5, low=low, high=math.inf, random=0.25)
    assert found == Metric(0.5, low=None, high=None, random=0.25)
    assert rounded(0.5, low=low, high=0.75) == Metric(0.5, high=0.75)
    path = written(tmp_path / "metrics.csv", {"road": found})
    assert path.read_text().splitlines()[1] == "road,0.5,,,0.25,,"


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    for metric, key in (
        (rounded(value), "value"),
        (rounded(0.5, random=value), "random"),
        (Metric(0.5, low=value), "low"),
        (Metric(value), "value"),
    ):
        with pytest.raises(ValueError, match=rf"metric 'entropy': its {key} is {value}"):
            metrics_table({"accuracy": Metric(0.5), "entropy": metric})
