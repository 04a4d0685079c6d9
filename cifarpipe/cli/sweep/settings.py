"""The settings with which a model was trained, and what they reach."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from cifarpipe.cli.experiments import Experiment
from cifarpipe.results.intervals import wilson_interval

SEED = "seed"  # runs that differ in it alone have one setting
# Sections on which no accuracy depends.
WITHOUT_EFFECT = ("evaluate.", "misclassified.", "gradcam.", "report.")


@dataclass(frozen=True)
class Sweep:
    """All settings with which one model was trained."""

    model: str
    varied: list[str]
    """Parameters that differ, with dotted names; the one with the most values first."""
    table: pd.DataFrame
    """A row per setting, sorted by its values: a column per varied parameter, `seeds` (number of
    runs), `val` and `test` (mean accuracies), `val_std` and `test_std` (over seeds; NaN for one
    seed), `val_low` and `val_high` (one seed: Wilson's 95% interval; several: ± one standard
    deviation)."""


def make_sweep(model: str, experiments: Sequence[Experiment]) -> Sweep:
    """Collect the runs of one model.

    Runs with equal settings and seeds count once. Parameters of other models, and of stages after
    training, do not make a different setting.

    Args:
        model: Its name.
        experiments: Those without this model are ignored.
    """
    runs = [each for each in experiments if model in each.metrics]
    names = dict.fromkeys(name for run in runs for name in run.params if _matters(name, model))
    values = {name: {_key(run.params.get(name)) for run in runs} for name in names}
    differing = [name for name in names if len(values[name]) > 1 and name != SEED]
    varied = sorted(differing, key=lambda name: -len(values[name]))
    settings: dict[tuple[str, ...], dict[str, Experiment]] = {}
    for run in runs:
        setting = tuple(_key(run.params.get(name)) for name in varied)
        settings.setdefault(setting, {}).setdefault(_key(run.params.get(SEED)), run)
    rows = [
        {name: _value(run.params.get(name)) for name in varied} | _statistics(model, seeds)
        for seeds in settings.values()
        for run in list(seeds.values())[:1]
    ]
    return Sweep(model, varied, _sorted(pd.DataFrame(rows), varied))


def _matters(name: str, model: str) -> bool:
    of_other = name.startswith("models.") and not name.startswith(f"models.{model}.")
    return not of_other and not name.startswith(WITHOUT_EFFECT)


def _key(value: Any) -> str:
    return json.dumps(float(value) if is_number(value) else value, sort_keys=True)


def _value(value: Any) -> Any:
    if value is None:  # the key is absent
        return "off"
    return value if isinstance(value, str) or is_number(value) else _key(value)


def _sorted(table: pd.DataFrame, varied: list[str]) -> pd.DataFrame:
    def rank(column: pd.Series) -> pd.Series:
        numbers = pd.to_numeric(column, errors="coerce")
        return numbers if numbers.notna().all() else column.astype(str)

    return table.sort_values(varied, key=rank, ignore_index=True) if varied else table


def _statistics(model: str, seeds: dict[str, Experiment]) -> dict[str, float]:
    runs = list(seeds.values())
    found: dict[str, float] = {"seeds": len(runs)}
    for kind, metric in (("val", "val_accuracy"), ("test", "accuracy")):
        # None without a validation split.
        values = np.array([run.metrics[model].get(metric) for run in runs], dtype=float)
        std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        found |= {kind: float(values.mean()), f"{kind}_std": std}
    low, high = found["val"] - found["val_std"], found["val"] + found["val_std"]
    images = runs[0].params.get("data.val_size")
    if len(runs) == 1 and images and not np.isnan(found["val"]):
        low, high = wilson_interval(round(found["val"] * images), images)
    return found | {"val_low": low, "val_high": high}


def is_number(value: Any) -> bool:
    """Return whether a value is a number, other than a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)
