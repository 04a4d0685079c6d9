"""Measure all ways to compute a step on this machine: `python -m benchmarks.gpu_speed DIR`.

Eagerly, compiled, as a CUDA graph, and compiled as a CUDA graph; each in both memory layouts, next
to an ordinary PyTorch loop and to the physical limit; and the kernels of a step. Then sections of
`benchmarks.bench`. Writes performance_gpu.md, speed.csv, kernels.csv and speed.log, again after
each measurement; the exit code is 75 if the time ran out first. On a CPU it measures what applies
there, and the page has another name.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.bench import page_head, page_text, sections
from benchmarks.machine import GPU_SIZE, TOY, TOY_SIZE, bandwidth, table, this_machine
from benchmarks.profiles import kernels
from benchmarks.steps import measured_peaks, physical_limit
from benchmarks.tasks import (
    HOME,
    UNFINISHED,
    Outcome,
    Row,
    Task,
    TaskRunner,
    command_line,
)
from benchmarks.workloads import (
    BATCH,
    EPOCH_HEAD,
    default_models,
    epoch_row,
    ordinary_steps,
    train_steps,
)
from cifarpipe.config.errors import UserError
from cifarpipe.networks.precision import pick_precision
from cifarpipe.store.outputs import write_csv, write_text
from cifarpipe.training.execution import Execution

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
WAYS: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"compiled": True},
    "graphed": {"graphed": True},
    "compiled and graphed": {"compiled": True, "graphed": True},
}
BASELINES = {"ordinary loop, AdamW": False, "ordinary loop, PyTorch's Muon": True}
LIMIT = "physical limit"
LONGEST, NAME_LENGTH = 8, 60  # kernels of a model in the page, and characters of their names
# Sections of `benchmarks.bench` that are measured afterwards, the most valuable first.
SECTIONS = (
    "Augmentation", "Optimizer", "Evaluation", "Start-up", "Train step in fp32", "More images",
)  # fmt: skip
TOY_SECTIONS = ("Optimizer", "Evaluation")


def measure_machine() -> list[Row]:
    """Return the page's head."""
    return [{"head": page_head(this_machine(), "benchmarks/gpu_session.sh speed")}]


def measure_ways(name: str, layout: str) -> list[Row]:
    """Measure a model's steps in one layout; in the contiguous one also baselines and limit."""
    machine = this_machine()
    entry, steps = default_models(machine)[name], machine.size.steps
    images = BATCH * steps
    use_compiler_cache(name, layout, empty=True)
    precision = pick_precision("auto", machine.device)
    plain = Execution(machine.device, precision, LAYOUTS[layout], required=True)
    works: dict[str, Callable[[], None]] = {}
    rows: list[Row] = []

    def add(way: str, **values: object) -> None:
        row = {"model": name, "layout": layout, "way": way, "precision": precision}
        rows.append(row | values)
        print(rows[-1], flush=True)

    starts: dict[str, float] = {}
    for way, options in WAYS.items():
        if options.get("graphed") and machine.device.type == "cpu":
            add(way, error="graphs need a GPU")
            continue
        try:
            work = train_steps(entry, replace(plain, **options), steps=steps)
            starts[way] = machine.seconds(work)
        except UserError as error:
            add(way, error=str(error).splitlines()[0])
        else:
            works[way] = work
    seconds = dict(zip(works, machine.alternately(list(works.values())), strict=True))
    for way, value in seconds.items():
        add(way, images_per_second=images / value, start_seconds=starts[way] - value)
    if layout == "contiguous":
        best = works[min(seconds, key=lambda way: seconds[way])]
        baselines = [
            ordinary_steps(entry, machine, steps=steps, same_optimizer=same)
            for same in BASELINES.values()
        ]
        _, *others = machine.compare(best, *baselines)
        for way, value in zip(BASELINES, others, strict=True):
            add(way, images_per_second=images / value, precision="fp32")
        limit, bound = physical_limit(entry, plain, measured_peaks(machine), bandwidth(machine))
        add(LIMIT, images_per_second=limit, bound=bound)
    return rows


def measure_kernels(name: str) -> list[Row]:
    """Measure the kernels of a model's step."""
    use_compiler_cache(name, "contiguous", empty=False)
    rows: list[Any] = kernels(this_machine(), name).assign(model=name).to_dict("records")
    return rows


def measure_epoch(name: str) -> list[Row]:
    """Measure whole epochs of a model, by its default recipe, next to an ordinary loop."""
    use_compiler_cache(name, "contiguous", empty=False)
    machine = this_machine()
    return [{"cells": epoch_row(machine, name, default_models(machine)[name])}]


def measure_section(*words: str) -> list[Row]:
    """Measure a section of `benchmarks.bench`."""
    return [{"text": sections(this_machine())[" ".join(words)]()}]


def use_compiler_cache(name: str, layout: str, *, empty: bool) -> None:
    """Set the folder of the compiler's results for a model.

    Args:
        name: Of the model.
        layout: In memory.
        empty: Remove earlier results, so that compiling is timed in full.
    """
    folder = HOME / "compiled" / f"{name}-{layout}"
    if empty:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


FUNCTIONS: dict[str, Callable[..., list[Row]]] = {
    "machine": measure_machine,
    "ways": measure_ways,
    "kernels": measure_kernels,
    "epoch": measure_epoch,
    "section": measure_section,
}


def all_tasks() -> list[Task]:
    """Return all measurements, the most valuable first."""
    names = list((TOY_SIZE if TOY else GPU_SIZE).trained)
    convolutional = [name for name in names if name.startswith(("convmixer", "resnet"))]
    others = [name for name in names if name not in convolutional]
    return [
        Task("machine", 120),
        *(
            task
            for name in names
            for task in (Task(f"ways {name} contiguous", 300), Task(f"kernels {name}", 120))
        ),
        *(Task(f"ways {name} channels_last", 300) for name in convolutional),
        *(Task(f"epoch {name}", 300) for name in names),
        *(Task(f"ways {name} channels_last", 300) for name in others),
        *(Task(f"section {name}", 300) for name in (TOY_SECTIONS if TOY else SECTIONS)),
    ]


def write_results(folder: Path, runner: TaskRunner, outcomes: list[Outcome]) -> None:
    """Write the page, the table of all ways, and the logs."""
    by_function: dict[str, list[Outcome]] = {name: [] for name in FUNCTIONS}
    for each in outcomes:
        by_function[each.task.split(" ")[0]].append(each)
    ways = pd.DataFrame([row for each in by_function["ways"] for row in each.rows])
    write_csv(folder / "speed.csv", ways, float_format="%.6g")
    by_kernel = pd.DataFrame([row for each in by_function["kernels"] for row in each.rows])
    write_csv(folder / "kernels.csv", by_kernel, float_format="%.6g")
    head = "".join(row["head"] for each in by_function["machine"] for row in each.rows)
    texts: dict[str, str] = {}
    if not ways.empty:
        texts["Ways to compute a step"] = ways_table(ways)
        texts["Seconds until the first steps"] = starts_table(ways)
    if not by_kernel.empty:
        texts["Kernels of a step"] = kernels_table(by_kernel)
    if cells := [row["cells"] for each in by_function["epoch"] for row in each.rows]:
        texts["Whole epoch"] = table(EPOCH_HEAD, cells)
    for each in by_function["section"]:
        texts[each.task.partition(" ")[2]] = "".join(row["text"] for row in each.rows)
    failed = [f"- {each.task}: {each.error}\n" for each in outcomes if each.error]
    if "error" in ways:
        failed += [
            f"- {row.model}, {row.layout}, {row.way}: {row.error}\n"
            for row in ways[ways.error.notna()].itertuples()
        ]
    if failed:
        texts["Without result"] = "".join(failed)
    missing = [f"- {task.name}\n" for task in all_tasks() if runner.outcome(task) is None]
    if missing:
        texts["Not measured yet"] = "".join(missing)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    write_text(folder / f"performance_{device}.md", page_text(head, texts))
    write_text(folder / "speed.log", runner.logs(all_tasks()))


def ways_table(ways: pd.DataFrame) -> str:
    """Return images per second: a row per model and layout, a column per way."""
    rates = values_by_way(ways, "images_per_second")
    others = [*BASELINES, LIMIT]
    rows = []
    for model, layout in subjects(ways):
        ours = [rates.get((model, layout, way)) for way in WAYS]
        theirs = [rates.get((model, "contiguous", way)) for way in others]
        best = max((rate for rate in ours if rate), default=None)
        ratios = [f"{best / rate:.3g}" if best and rate else "" for rate in theirs]
        cells = [f"{rate:,.0f}" if rate else "" for rate in (*ours, *theirs)]
        rows.append([f"`{model}`", layout, *cells, *ratios])
    head = ["images/s", "layout", *WAYS, *others, *(f"best : {other}" for other in others)]
    precision = ", ".join(ways.precision[ways.way.isin(WAYS)].unique())
    return f"In {precision}; the ordinary loops in fp32.\n\n" + table(head, rows)


def starts_table(ways: pd.DataFrame) -> str:
    """Return what the first call of each way takes in addition, compiling included."""
    seconds = values_by_way(ways, "start_seconds")
    rows = []
    for model, layout in subjects(ways):
        values = [seconds.get((model, layout, way)) for way in WAYS]
        cells = ["" if value is None else f"{value:.1f}" for value in values]
        rows.append([f"`{model}`", layout, *cells])
    text = "What the first call takes in addition. `compiled` compiles with an empty cache"
    text += ", `compiled and graphed` after that in the same process.\n\n"
    return text + table(["seconds", "layout", *WAYS], rows)


def kernels_table(by_kernel: pd.DataFrame) -> str:
    """Return a row per model: how many kernels a step has, their time, and the longest of them."""
    rows = []
    for model, found in by_kernel.groupby("model", sort=False):
        total, step = found.microseconds.sum(), found.step.iloc[0]
        top = found[:LONGEST]
        longest = [
            f"`{kernel[:NAME_LENGTH]}` {time / total:.0%} ({calls:.3g} ×)"
            for kernel, time, calls in zip(top.kernel, top.microseconds, top.calls, strict=True)
        ]
        numbers = [f"{found.calls.sum():,.0f}", f"{total:,.0f} µs", f"{step:,.0f} µs"]
        rows.append([f"`{model}`", *numbers, "<br>".join(longest)])
    head = ["model", "kernels", "their time", "the step's time", "the longest: share (calls)"]
    return "All of them are in `kernels.csv`.\n\n" + table(head, rows)


def subjects(ways: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the measured models and layouts, in order."""
    return list(dict.fromkeys(zip(ways.model, ways.layout, strict=True)))


def values_by_way(ways: pd.DataFrame, column: str) -> dict[tuple[str, str, str], float]:
    """Return a column's values by model, layout and way, without missing ones."""
    if column not in ways:
        return {}
    there = ways[ways[column].notna()]
    keys = zip(there.model, there.layout, there.way, strict=True)
    return dict(zip(keys, there[column], strict=True))


def main(folder: Path, until: float) -> int:
    """Make all measurements; print the page."""
    runner = TaskRunner("gpu_speed")
    finished = runner.run(
        all_tasks(), until=until, jobs=1, on_outcome=partial(write_results, folder, runner)
    )
    for page in folder.glob("performance_*.md"):
        print(page.read_text(encoding="utf-8"))
    return 0 if finished else UNFINISHED


if __name__ == "__main__":
    command_line(FUNCTIONS, main)
