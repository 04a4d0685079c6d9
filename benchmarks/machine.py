"""What is measured on, how, and how it is written down."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import ordinary
from benchmarks.study import run
from cifarpipe.networks.devices import pick_device
from cifarpipe.training.distributed import cores

# vit_mean costs what vit does, and resnet18_ln_plateau has the network of resnet18_ln.
MODELS = ("vit", "vit_t2t", "convmixer", "resnet18_ln")
PEAK_RUNS = 20  # of which the fastest counts


@dataclass(frozen=True)
class Size:
    """How much is measured; medians of `repeats`."""

    augmented: int
    """Images."""
    steps: int
    trained: dict[str, int]
    """Images of an epoch."""
    evaluated: int
    """Images."""
    matrix: int
    """Side of the matrices whose product tells the peak."""
    repeats: int = 3


CPU_SIZE = Size(
    augmented=16_384,
    steps=4,
    trained={"vit": 2048, "vit_t2t": 1536, "convmixer": 1024, "resnet18_ln": 1024},
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


@dataclass(frozen=True)
class Machine:
    """What is measured, and how much of it."""

    device: torch.device
    size: Size

    def seconds(self, work: Callable[[], object]) -> float:
        """Time one call, up to the device's last operation."""
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def median(self, way: Callable[[], object]) -> float:
        """Return the median seconds of one way, after one untimed call."""
        way()
        return statistics.median(self.seconds(way) for _ in range(self.size.repeats))

    def compare(
        self, here: Callable[[], object], ordinarily: Callable[[], object]
    ) -> tuple[float, float]:
        """Return the median seconds of both ways, taken in turn after one untimed call each.

        How memory is kept is part of the way here. What it keeps is given back in between, so it
        gets an untimed call in every turn.
        """
        times: tuple[list[float], list[float]] = [], []
        for _ in range(self.size.repeats + 1):
            pick_device()  # sets up how memory is kept
            here()
            times[0].append(self.seconds(here))
            if self.device.type == "cpu":
                ordinary.usual_memory()
            times[1].append(self.seconds(ordinarily))
        pick_device()
        return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def peak(machine: Machine, precision: str) -> float:
    """Return floating-point operations per second: of a large matrix product or convolution.

    The better of the two, since they are not computed by the same library everywhere, and its best
    time: a limit is not what is usual.
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
    """Return bytes per second of a large copy, read and written."""
    source = torch.zeros(2**26, device=machine.device)
    target = torch.empty_like(source)
    seconds = machine.median(lambda: target.copy_(source))
    return 2 * source.nbytes / seconds


def command_seconds(folder: Path, command: list[str]) -> float:
    """Return the median seconds of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run(folder, *command)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def processor() -> str:
    """Return the CPU's name, its cores and the instructions that count here."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {cores()} cores"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; numbers stand to the right."""
    lines = [" | ".join(head)]
    lines.append(" | ".join(["---", *["---:"] * (len(list(head)) - 1)]))
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def per_second(images: int, seconds: float) -> str:
    """Return a rate with three digits that count."""
    rate = images / seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
