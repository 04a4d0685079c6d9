"""`cifarpipe sweep`: which parameter values are best, over the finished experiments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cifarpipe.cli.experiments import Experiment, read_experiments
from cifarpipe.config.errors import UserError
from cifarpipe.figures.layout import save_figure, short
from cifarpipe.report.templating import cell
from cifarpipe.results.intervals import wilson_interval
from cifarpipe.store.outputs import write_text

SEED = "seed"  # runs that differ in it alone have one setting
# Sections on which no accuracy depends.
WITHOUT_EFFECT = ("evaluate.", "misclassified.", "gradcam.", "report.")
NEAR = 0.02  # of accuracy below the best that still counts as good


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


def compare_experiments(models: list[str], revisions: list[str], out: Path) -> None:
    """Print a table for each model, and write it to `out/sweep.md` with a figure.

    Args:
        models: Only these; by default all for which a parameter differs.
        revisions: Commits that experiments started from; by default the current one.
        out: Folder to write to.

    Raises:
        UserError: A model has no results, or no parameter differs.
    """
    experiments = read_experiments(revisions)
    known = dict.fromkeys(name for each in experiments for name in each.metrics)
    if unknown := [name for name in models if name not in known]:
        raise UserError(
            f"--model is {unknown[0]!r}; allowed, since they have results: "
            f"{', '.join(known) or 'none yet: run `dvc exp run` first'}."
        )
    parts = []
    for name in models or known:
        sweep = make_sweep(name, experiments)
        if not sweep.varied and not models:
            continue
        part = f"## {name}\n\n{' '.join(conclusions(sweep))}\n\n{markdown(sweep)}"
        if sweep.varied:
            save_figure(draw_sweep(sweep), out / f"{name}.png")
            part += f"\n![{name}: accuracy by {', '.join(sweep.varied)}]({name}.png)\n"
        parts.append(part)
        print(part)
    if not parts:
        raise UserError(
            f"{len(experiments)} runs are finished, and no parameter differs between them.\n"
            f"Run some first: dvc exp run --queue -S 'lr=choice(0.003,0.01,0.03)', then dvc queue "
            f"start, and this command again when they are finished."
        )
    write_text(out / "sweep.md", "\n".join(parts))
    print(f"written: {out / 'sweep.md'}")


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
    return json.dumps(float(value) if _is_number(value) else value, sort_keys=True)


def _value(value: Any) -> Any:
    if value is None:  # the key is absent
        return "off"
    return value if isinstance(value, str) or _is_number(value) else _key(value)


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


def conclusions(sweep: Sweep) -> list[str]:
    """Return sentences: which setting is best on validation, and how sharp the optimum is."""
    table = sweep.table
    if not sweep.varied:
        return [f"{sweep.model}: no parameter differs, so there is nothing to choose."]
    if table.val.isna().all():
        return [
            f"{sweep.model}: there is no validation split (data.val_size is 0), so no setting can "
            f"be chosen without using the test images."
        ]
    best = table[np.isclose(table.val, table.val.max(), rtol=0, atol=1e-9)]
    sentences = [_best_sentence(sweep, best)]
    x, *others = sweep.varied
    if not others or len(best[others].drop_duplicates()) == 1:  # else there is no single optimum
        same = [table[other] == best[other].iloc[0] for other in others]
        line = (table[np.logical_and.reduce(same)] if others else table).dropna(subset="val")
        if len(line) > 1 and all(map(_is_number, line[x])):
            start, *more = _sharpness(line.reset_index(drop=True), x, list(best[x]))
            if others:
                fixed = ", ".join(f"{name} = {best[name].iloc[0]}" for name in others)
                start = f"At {fixed}: {start[0].lower()}{start[1:]}"
            sentences += [start, *more]
    if table.val_std.notna().any():
        sentences.append(
            f"The standard deviation of validation accuracy over seeds is up to "
            f"{_points(table.val_std.max())}."
        )
    if table.seeds.min() < table.seeds.max():
        sentences.append(
            f"Settings have {table.seeds.min()} to {table.seeds.max()} seeds: those with few are "
            f"more easily best by chance."
        )
    if (table.seeds == 1).any():
        widest = (table.val_high - table.val_low)[table.seeds == 1].max()
        noise = _points(widest / 2**0.5)
        sentences.append(
            f"Differences of up to {noise} between single-seed runs may be due to the sampling of "
            f"validation images; the randomness of training adds to that."
        )
    return sentences


def _best_sentence(sweep: Sweep, best: pd.DataFrame) -> str:
    settings = [
        ", ".join(f"{name} = {row[name]}" for name in sweep.varied)
        for row in best[sweep.varied].astype(object).to_dict("records")
    ]
    val = f"{best.val.iloc[0]:.2%} validation accuracy"
    if len(settings) > 1:
        return f"{sweep.model}: tied for best, with {val}: {'; '.join(settings)}."
    return (
        f"{sweep.model}: {settings[0]} is best, with {val} (test accuracy {best.test.iloc[0]:.2%}, "
        f"which was not used to choose)."
    )


def _sharpness(line: pd.DataFrame, x: str, best: Sequence[Any]) -> list[str]:
    """Return how far one may deviate from the best value, all other parameters being equal.

    Args:
        line: Rows of the table that differ in `x` alone, sorted.
        x: Name of a parameter with numeric values.
        best: Its best value, or several that are tied.
    """
    top = line.val[line[x] == best[0]].iloc[0]
    first, last = (int(line.index[line[x] == value][0]) for value in (min(best), max(best)))
    while first > 0 and line.val[first - 1] >= top - NEAR:
        first -= 1
    while last + 1 < len(line) and line.val[last + 1] >= top - NEAR:
        last += 1
    if first == last:
        sentences = [f"No other {x} is within {_points(NEAR)} of the best."]
    else:
        low, high = line[x][first], line[x][last]
        factor = f", a factor of {high / low:.3g}" if low > 0 else ""
        if (line.val[first : last + 1] >= top - NEAR).all():
            stays = f"accuracy stays within {_points(NEAR)}"
        else:  # two best values that are tied
            stays = f"some values in between are worse by more than {_points(NEAR)}"
        sentences = [f"From {x} = {low} to {high}{factor}, {stays}."]
    drops = [
        f"by {_points(top - line.val[i])} at {line[x][i]}"
        for i in (first - 1, last + 1)
        if 0 <= i < len(line)
    ]
    if drops:
        sentences.append(f"Accuracy is lower {', '.join(drops)}.")
    for end, value in (("lowest", line[x].iloc[0]), ("highest", line[x].iloc[-1])):
        if list(best) == [value]:
            sentences.append(f"The best {x} is the {end} one tried: try further values.")
    return sentences


def _points(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} points".replace(".0 ", " ")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def draw_sweep(sweep: Sweep) -> Figure:
    """Draw accuracy over the parameter with the most values, a line per setting of the others.

    Filled markers: validation, with its interval; hollow markers: test.
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
        label = ", ".join(f"{name} = {value}" for name, value in zip(others, setting, strict=True))
        places = [at[value] for value in line[x]]
        errors = (line.val - line.val_low, line.val_high - line.val)
        axes.errorbar(places, line.val, errors, color=colour, marker="o", capsize=3,
                      label=f"{label} validation".strip())  # fmt: skip
        axes.plot(places, line.test, color=colour, marker="o", markerfacecolor="none",
                  linestyle=":", label=f"{label} test".strip())  # fmt: skip
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
