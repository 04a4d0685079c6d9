"""Time work on this machine, measure its peaks, and format the results."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import ordinary
from benchmarks.study import run
from cifarpipe.config.machine import cores
from cifarpipe.networks.devices import pick_device

# resnet18_ln_plateau has the network of resnet18_ln.
MODELS = ("vit", "vit_t2t", "vit_conv", "convmixer", "compact_ln", "resnet18_ln")
PEAK_RUNS = 20  # the fastest one is the peak
TOY = bool(os.environ.get("TOY"))  # set: sizes that only show that everything runs


@dataclass(frozen=True)
class Size:
    """The sizes of the measurements."""

    augmented: int
    """Images to augment."""
    steps: int
    """Train steps of a measurement."""
    trained: dict[str, int]
    """Images of an epoch, for each measured model."""
    evaluated: int
    """Images to evaluate."""
    matrix: int
    """Side of the matrices whose product measures the peak."""
    repeats: int = 3
    """Measurements of which the median is taken."""
    params: str = "params.yaml"
    """File of the models."""


CPU_SIZE = Size(
    augmented=16_384,
    steps=4,
    trained={
        "vit": 2048,
        "vit_t2t": 1536,
        "vit_conv": 2048,
        "convmixer": 1024,
        "compact_ln": 2048,
        "resnet18_ln": 1024,
    },
    evaluated=2000,
    matrix=2048,
)
GPU_SIZE = Size(
    augmented=50_000,
    steps=50,
    trained=dict.fromkeys(MODELS, 50_000),
    evaluated=10_000,
    matrix=8192,
)
TOY_SIZE = Size(
    augmented=256,
    steps=2,
    trained={"vit": 256, "convmixer": 256},
    evaluated=200,
    matrix=128,
    repeats=1,
    params="params.demo.yaml",
)


@dataclass(frozen=True)
class Machine:
    """A device, and the sizes of the measurements on it."""

    device: torch.device
    size: Size

    def seconds(self, work: Callable[[], object]) -> float:
        """Time one call, until the device has finished it."""
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def median(self, work: Callable[[], object]) -> float:
        """Return the median seconds of a call, after an untimed one."""
        work()
        return statistics.median(self.seconds(work) for _ in range(self.size.repeats))

    def compare(self, ours: Callable[[], object], *baselines: Callable[[], object]) -> list[float]:
        """Return the median seconds of each, timed alternately; the first round is not counted.

        The baselines run with PyTorch's default settings. On a CPU the memory that ours keeps is
        released for them, so that ours needs an untimed call in every round.
        """
        rounds: list[list[float]] = []
        for _ in range(self.size.repeats + 1):
            pick_device()
            ours()
            times = [self.seconds(ours)]
            ordinary.use_default_settings(self.device)
            rounds.append(times + [self.seconds(baseline) for baseline in baselines])
        pick_device()
        return [statistics.median(column) for column in zip(*rounds[1:], strict=True)]

    def alternately(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Return the median seconds of each, timed alternately with the same settings."""
        rounds = [[self.seconds(work) for work in works] for _ in range(self.size.repeats + 1)]
        return [statistics.median(column) for column in zip(*rounds[1:], strict=True)]


def this_machine() -> Machine:
    """Return the GPU if there is one, else the CPU, and the sizes for it."""
    device = pick_device()
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    return Machine(device, TOY_SIZE if TOY else size)


def peak(machine: Machine, precision: str) -> float:
    """Return the peak rate in floating-point operations per second.

    The rate of a large matrix product or of a large convolution, whichever is higher, since
    different libraries may compute them; of several runs the fastest.

    Args:
        machine: Where to measure.
        precision: `fp32` or `bf16`.
    """

    def best(work: Callable[[], object]) -> float:
        work()
        return min(machine.seconds(work) for _ in range(PEAK_RUNS))

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    side = machine.size.matrix
    left, right = (torch.randn(side, side, device=machine.device).to(dtype) for _ in range(2))
    product = 2 * side**3 / best(lambda: left @ right)
    channels, rows, images = 256, 32, side // 32
    batch, kernel = (
        torch.randn(shape, device=machine.device).to(dtype).to(memory_format=torch.channels_last)
        for shape in ((images, channels, rows, rows), (channels, channels, 3, 3))
    )
    seconds = best(lambda: torch.nn.functional.conv2d(batch, kernel, padding=1))
    convolution = 2 * images * rows**2 * 9 * channels**2 / seconds
    return max(product, convolution)


def bandwidth(machine: Machine) -> float:
    """Return the bytes per second of a large copy, reading and writing added."""
    source = torch.zeros(2**26, device=machine.device)
    target = torch.empty_like(source)
    seconds = machine.median(lambda: target.copy_(source))
    return 2 * source.nbytes / seconds


def command_seconds(folder: Path, command: list[str]) -> float:
    """Return the median seconds of three runs of a command in `folder`."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run(folder, *command)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def processor() -> str:
    """Return the CPU's name and the number of cores."""
    described = Path("/proc/cpuinfo")  # of Linux
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {cores()} cores"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [" | ".join(head)]
    lines.append(" | ".join(["---", *["---:"] * (len(list(head)) - 1)]))
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def per_second(images: int, seconds: float) -> str:
    """Return images per second, rounded for reading."""
    rate = images / seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
