"""Metrics of a model as a table: a value, its interval, and what uninformative baselines score."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np
import pandas as pd

from cifarpipe.results.damage import naming_damaged

PLACES = 4  # decimal places


@dataclass(frozen=True)
class Metric:
    """A measured value and what belongs to it; None where there is no such thing."""

    value: float | int
    low: float | None = None
    """Lower end of the 95% interval."""
    high: float | None = None
    random: float | None = None
    """The same metric of random maps, or of unrelated ones."""
    centre: float | None = None
    """The same metric of maps that always mark the image's centre."""
    images: int | None = None
    """Images it was measured on, where these are not all."""


Metrics: TypeAlias = dict[str, Metric]
COLUMNS = ("metric", *(field.name for field in fields(Metric)))


def rounded(value: float, **belonging: float) -> Metric:
    """Return a metric rounded to `PLACES`; an end of an interval that is not finite is left out.

    Args:
        value: The metric's value.
        **belonging: Other fields of `Metric`.
    """
    known: dict[str, Any] = {
        key: round(float(each), PLACES)
        for key, each in belonging.items()
        if math.isfinite(each) or key not in {"low", "high"}
    }
    return replace(Metric(round(float(value), PLACES)), **known)


def metrics_table(metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Return a row per metric: columns `COLUMNS`, as text; an empty cell means None.

    Raises:
        ValueError: A number is not finite.
    """
    for name, metric in metrics.items():
        for key, value in asdict(metric).items():
            if isinstance(value, float | np.floating) and not math.isfinite(value):
                raise ValueError(f"metric {name!r}: its {key} is {value}, not a finite number")
    rows = [
        {"metric": name} | {key: "" if v is None else str(v) for key, v in asdict(metric).items()}
        for name, metric in metrics.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def load_metrics(path: Path) -> Metrics:
    """Read the metrics of a stage.

    Raises:
        UserError: The file is damaged.
    """
    with naming_damaged(path):
        return read_metrics(path)


def read_metrics(path: Path | TextIO) -> Metrics:
    """Read what `metrics_table` returned, written as CSV; `ValueError` if it is damaged."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    metrics = {}
    for row in table.to_dict("records"):
        name = str(row.pop("metric"))
        given: dict[str, Any] = {str(key): _parse(text) for key, text in row.items() if text}
        if "value" not in given:
            raise ValueError(f"{name!r} has no value")
        metrics[name] = Metric(**given)
    return metrics


def _parse(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)
