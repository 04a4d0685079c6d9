"""Train one epoch on 500,000 random images that are streamed; print the memory it used.

`python -m benchmarks.streamed [IMAGES]`. It has a process of its own, whose memory nothing else
uses.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.noise import CLASSES, SIZE, as_prepared
from benchmarks.study import ROOT
from cifarpipe.config.reader import load_params
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import pick_device
from cifarpipe.networks.images import room
from cifarpipe.store.prepared import Split
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Run, train

PART = 10_000  # images generated at a time


def resident_bytes() -> int:
    """Return the resident memory of this process, mapped files included."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


class MemoryMonitor(threading.Thread):
    """Records the largest resident memory while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = resident_bytes()
        self.ended = threading.Event()

    def run(self) -> None:
        """Read it every 20 ms."""
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, resident_bytes())


def write_images(path: Path, count: int) -> int:
    """Write random images as a `.npy` file; return their bytes."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIZE, SIZE, 3))
    for start in tqdm(range(0, count, PART), desc="generating", leave=False, disable=None):
        stop = min(start + PART, count)
        images[start:stop] = rng.integers(0, 256, (stop - start, SIZE, SIZE, 3), dtype=np.uint8)
    return int(images.nbytes)


def main() -> None:
    """Generate images, train, and print time and memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    device = pick_device()
    entry = load_params(ROOT / "params.yaml").models["convmixer"]
    entry = entry.model_copy(update={"dim": 8, "depth": 1, "epochs": 1, "batch_size": 128})
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "images.npy"
        size = write_images(path, count)
        labels = np.random.default_rng(1).integers(0, CLASSES, count)
        data = as_prepared(Split(np.load(path, mmap_mode="r"), labels, np.arange(count)))
        torch.manual_seed(0)
        model = build_model(entry.architecture, num_classes=CLASSES, image_size=SIZE)
        plan = Run("convmixer", entry, peak_lr=1e-4, seed=0, keep="last")
        before = resident_bytes()
        monitor = MemoryMonitor()
        monitor.start()
        begun = time.perf_counter()
        train(model, data, plan, Execution(device, "fp32"))
        seconds = time.perf_counter() - begun
        monitor.ended.set()
        monitor.join()
    way = "streamed" if size > room(device) else "resident on the device"
    used = (monitor.peak - before) / 2**30
    print(
        f"{count:,} random images ({size / 2**30:.2f} GiB, {way}): {seconds * 1e6 / count:.1f} µs "
        f"per image; at most {used:.2f} GiB of resident memory above the start."
    )


if __name__ == "__main__":
    main()
