"""Print and write tables and figures of sweeps."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cifarpipe.cli.experiments import read_experiments
from cifarpipe.cli.sweep.conclusions import conclusions
from cifarpipe.cli.sweep.settings import Sweep, is_number, make_sweep
from cifarpipe.config.errors import UserError
from cifarpipe.figures.layout import save_figure, short
from cifarpipe.report.templating import cell
from cifarpipe.store.outputs import write_text


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
            f"--model {unknown[0]!r} has no results. Models with results: "
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


def draw_sweep(sweep: Sweep) -> Figure:
    """Draw accuracy over the parameter with the most values, a line per setting of the others.

    Filled markers: validation, with its interval; hollow markers: test.
    """
    x, *others = sweep.varied
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    values = list(dict.fromkeys(sweep.table[x]))
    numeric = all(map(is_number, values))
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
