"""Which value of a parameter is best, and how sharp the optimum: experiments beside each other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cifarpipe.cli.experiments import Experiment
from cifarpipe.figures.sheets import short
from cifarpipe.report.templating import cell
from cifarpipe.results.intervals import wilson_interval

SEED = "seed"  # runs that differ in it alone are one setting
# Sections that no accuracy depends on.
AFTERWARDS = ("evaluate.", "misclassified.", "gradcam.", "report.")
NEAR = 0.02  # of accuracy below the best that still counts as good


@dataclass(frozen=True)
class Sweep:
    """All settings under which one model was tried."""

    model: str
    varied: list[str]
    """Parameters that differ, by dotted name; the one with the most values first."""
    table: pd.DataFrame
    """A row per setting, in the order of its values: a column per varied parameter, `seeds` (runs),
    `val` and `test` (mean accuracies), `val_std` and `test_std` (over the seeds; NaN of one),
    `val_low` and `val_high` (of one seed Wilson's 95% interval, of several ± one deviation)."""


def sweep_of(model: str, experiments: Sequence[Experiment]) -> Sweep:
    """Put one model's runs beside each other.

    Runs of equal settings and seeds are one run. What only concerns other models, or what comes
    after training, makes no setting.

    Args:
        model: Its name.
        experiments: Those that do not hold it are left out.
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
        {name: _value(run.params.get(name)) for name in varied} | _figures(model, seeds)
        for seeds in settings.values()
        for run in list(seeds.values())[:1]
    ]
    return Sweep(model, varied, _in_order(pd.DataFrame(rows), varied))


def _matters(name: str, model: str) -> bool:
    of_other = name.startswith("models.") and not name.startswith(f"models.{model}.")
    return not of_other and not name.startswith(AFTERWARDS)


def _key(value: Any) -> str:
    return json.dumps(float(value) if _is_number(value) else value, sort_keys=True)


def _value(value: Any) -> Any:
    return value if isinstance(value, str) or _is_number(value) else _key(value)


def _in_order(table: pd.DataFrame, varied: list[str]) -> pd.DataFrame:
    def rank(column: pd.Series) -> pd.Series:
        numbers = pd.to_numeric(column, errors="coerce")
        return numbers if numbers.notna().all() else column.astype(str)

    return table.sort_values(varied, key=rank, ignore_index=True) if varied else table


def _figures(model: str, seeds: dict[str, Experiment]) -> dict[str, float]:
    runs = list(seeds.values())
    figures: dict[str, float] = {"seeds": len(runs)}
    for kind, metric in (("val", "val_accuracy"), ("test", "accuracy")):
        # None where nothing was held out.
        found = np.array([run.metrics[model].get(metric) for run in runs], dtype=float)
        std = float(found.std(ddof=1)) if len(found) > 1 else np.nan
        figures |= {kind: float(found.mean()), f"{kind}_std": std}
    low, high = figures["val"] - figures["val_std"], figures["val"] + figures["val_std"]
    images = runs[0].params.get("data.val_size")
    if len(runs) == 1 and images and not np.isnan(figures["val"]):
        low, high = wilson_interval(round(figures["val"] * images), images)
    return figures | {"val_low": low, "val_high": high}


def conclusions(sweep: Sweep) -> list[str]:
    """Say which setting is best on validation images, and how sharp the optimum is.

    Returns:
        Sentences.
    """
    table = sweep.table
    if not sweep.varied:
        return [f"{sweep.model}: no parameter differs, so there is nothing to choose."]
    if table.val.isna().all():
        return [
            f"{sweep.model}: nothing was held out (data.val_size is 0), so no setting can be "
            f"chosen without looking at the test images."
        ]
    place = int(table.val.argmax())
    best = {name: table[name][place] for name in table}  # a row of its own would turn to floats
    setting = ", ".join(f"{name} = {best[name]}" for name in sweep.varied)
    said = [
        f"{sweep.model}: {setting} is best, with {best['val']:.2%} on validation images "
        f"({best['test']:.2%} on test images, which chose nothing)."
    ]
    x = sweep.varied[0]
    others = sweep.varied[1:]
    alike = [table[other] == best[other] for other in others]
    line = (table[np.logical_and.reduce(alike)] if others else table).dropna(subset="val")
    if len(line) > 1 and all(map(_is_number, line[x])):
        said += _sharpness(line.reset_index(drop=True), x, best[x])
    if table.val_std.notna().any():
        said.append(
            f"Between seeds of one setting, validation accuracy scatters by up to "
            f"{_points(table.val_std.max())} (one standard deviation)."
        )
    if table.seeds.min() < table.seeds.max():
        said.append(
            f"Settings have from {table.seeds.min()} to {table.seeds.max()} seeds: those with few "
            f"come out best by luck more easily."
        )
    if (table.seeds == 1).any():
        widest = (table.val_high - table.val_low)[table.seeds == 1].max()
        said.append(
            f"Between two runs of one seed each, up to {_points(widest / 2**0.5)} may be the "
            f"chance of which images were held out, and the training's own comes on top."
        )
    return said


def _sharpness(line: pd.DataFrame, x: str, best: Any) -> list[str]:
    """Say how far one may stray from the best value, others being as they are there."""
    place = int(line.index[line[x] == best][0])
    top = line.val[place]
    first = last = place
    while first > 0 and line.val[first - 1] >= top - NEAR:
        first -= 1
    while last + 1 < len(line) and line.val[last + 1] >= top - NEAR:
        last += 1
    if first == last:
        said = [f"No other {x} comes within {_points(NEAR)} of it."]
    else:
        low, high = line[x][first], line[x][last]
        factor = f", a factor of {high / low:.3g}" if low > 0 else ""
        said = [f"From {x} = {low} to {high}{factor}, accuracy stays within {_points(NEAR)}."]
    falls = [
        f"by {_points(top - line.val[i])} at {line[x][i]}"
        for i in (first - 1, last + 1)
        if 0 <= i < len(line)
    ]
    if falls:
        said.append(f"Beyond, it falls: {', '.join(falls)}.")
    edges = [end for end, i in (("lowest", 0), ("highest", len(line) - 1)) if place == i]
    if edges and len(line) > 1:
        said.append(f"The best {x} is the {edges[0]} one tried: try further.")
    return said


def _points(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} points".replace(".0 ", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def draw_sweep(sweep: Sweep) -> Figure:
    """Draw accuracy over the parameter with the most values, a line per setting of the others.

    Filled: validation, with its interval; hollow: test.
    """
    x, *others = sweep.varied
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    values = list(dict.fromkeys(sweep.table[x]))
    numeric = all(isinstance(value, int | float) for value in values)
    at = {value: value if numeric else place for place, value in enumerate(values)}
    lines = sweep.table.groupby(others, sort=False) if others else [((), sweep.table)]
    colours = mpl.color_sequences["petroff10"]
    for number, (setting, line) in enumerate(lines):
        colour = colours[number % len(colours)]
        named = ", ".join(f"{name} = {value}" for name, value in zip(others, setting, strict=True))
        places = [at[value] for value in line[x]]
        errors = (line.val - line.val_low, line.val_high - line.val)
        axes.errorbar(places, line.val, errors, color=colour, marker="o", capsize=3,
                      label=f"{named} validation".strip())  # fmt: skip
        axes.plot(places, line.test, color=colour, marker="o", markerfacecolor="none",
                  linestyle=":", label=f"{named} test".strip())  # fmt: skip
    if numeric and min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(at.values()), [short(str(value)) for value in at])
    axes.set(xlabel=x, ylabel="accuracy", title=sweep.model)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def markdown(sweep: Sweep) -> str:
    """Return the table in Markdown, accuracies in percent."""
    head = [*(f"`{name}`" for name in sweep.varied), "seeds", "validation", "test"]
    lines = [" | ".join(head), " | ".join(["---"] * len(sweep.varied) + ["---:"] * 3)]
    for row in sweep.table.to_dict("records"):
        cells = [cell(row[name]) for name in sweep.varied]
        cells += [str(row["seeds"])]
        cells += [_mean_std(row[kind], row[f"{kind}_std"]) for kind in ("val", "test")]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _mean_std(mean: float, std: float) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.2%}" if np.isnan(std) else f"{mean:.2%} ± {100 * std:.2f}"
