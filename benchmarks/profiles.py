"""Where the time of a train step goes: by kind of operation, and by kernel."""

from collections import Counter
from collections.abc import Iterator

import pandas as pd
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import Machine, table
from benchmarks.workloads import BATCH, default_models, how_computed, plan, train_steps

# By a part of the name of an operation, or of what called it; the first that matches counts.
CALLERS = {"optimizer": "Optimizer.step", "depthwise convolutions": "_Depthwise"}
OPERATIONS = {
    "products, convolutions": ("mm", "linear", "conv"),
    "norms": ("norm",),
    "activations": ("gelu", "relu", "threshold"),
    "softmax, loss": ("softmax", "nll", "cross_entropy"),
    "copies, casts": ("copy", "clone", "cat", "contiguous", "pad"),
}
OTHER = "other"


def profiles(machine: Machine) -> str:
    """Measure the share of each kind of operation in a train step, as users run it."""
    kinds = [*OPERATIONS, "depthwise convolutions", "optimizer", OTHER]
    rows = []
    for name, entry in default_models(machine).items():
        execution = plan(machine, entry)
        step = train_steps(entry, execution, steps=1)
        seconds: Counter[str] = Counter()
        on_gpu = machine.device.type == "cuda"
        for _ in range(machine.size.repeats):
            # A step right after a profile is slow: the profiler divides the memory that is kept.
            for _ in range(4):
                step()
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
            with profile(activities=activities, acc_events=True) as measured:
                step()
            for event in measured.events():
                own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
                seconds[kind(event)] += own / 1e6
        total = seconds.total()
        milliseconds = f"{1000 * total / machine.size.repeats:,.0f} ms"
        shares = [f"{seconds[each] / total:.0%}" for each in kinds]
        rows.append([f"`{name}`", how_computed(execution), milliseconds, *shares])
    return table([f"step of {BATCH} images", "computed in", "time", *kinds], rows)


def kernels(machine: Machine, name: str) -> pd.DataFrame:
    """Measure the kernels of a model's train step on a GPU, as users run it; on a CPU, operations.

    Returns:
        A row per kernel, the longest first: `kernel` (its name), and of one step `calls`,
        `microseconds` of all of them, and `step`, the microseconds of the step itself without the
        profiler.
    """
    entry, steps = default_models(machine)[name], machine.size.steps
    work = train_steps(entry, plan(machine, entry), steps=steps)
    seconds = machine.median(work) / steps
    on_gpu = machine.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        machine.seconds(work)
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    rows = []
    for event in found.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if event.device_type == device and own:
            rows.append([event.key, event.count / steps, own / steps, 1e6 * seconds])
    frame = pd.DataFrame(rows, columns=["kernel", "calls", "microseconds", "step"])
    return frame.sort_values("microseconds", ascending=False, ignore_index=True)


def kind(event: FunctionEvent) -> str:
    """Return the kind of an operation."""
    for name in names(event):
        for caller, part in CALLERS.items():
            if part in name:
                return caller
    for found, parts in OPERATIONS.items():
        if any(part in event.name for part in parts):
            return found
    return OTHER


def names(event: FunctionEvent) -> Iterator[str]:
    """Yield the names of an operation and of all that called it."""
    caller: FunctionEvent | None = event
    while caller is not None:
        yield caller.name
        caller = caller.cpu_parent
