"""Train one epoch on 500,000 generated images that are streamed; print how much memory it took.

`python -m benchmarks.streamed [IMAGES]`, in a process of its own, so that nothing else counts.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.study import ROOT
from cifarpipe.config.reader import load_params
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import pick_device
from cifarpipe.networks.images import room
from cifarpipe.store.prepared import Split
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import train

PART = 10_000


def resident() -> int:
    """Return the bytes of memory that this process holds, files mapped into it included."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


class Watch(threading.Thread):
    """Notes the most memory held while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = resident()
        self.ended = threading.Event()

    def run(self) -> None:
        """Look every 20 ms."""
        while not self.ended.wait(0.02):
            self.most = max(self.most, resident())


def main() -> None:
    """Generate, train, print a sentence."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    device = pick_device()
    entry = load_params(ROOT / "params.yaml").models["convmixer"]
    entry = entry.model_copy(update={"dim": 8, "depth": 1, "epochs": 1, "batch_size": 128})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "images.npy"
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 32, 32, 3))
        for start in tqdm(range(0, count, PART), desc="generating", leave=False, disable=None):
            stop = min(start + PART, count)
            images[start:stop] = rng.integers(0, 256, (stop - start, 32, 32, 3), dtype=np.uint8)
        size = images.nbytes
        del images
        split = Split(np.load(path, mmap_mode="r"), rng.integers(0, 10, count), np.arange(count))
        empty = Split(np.empty((0, 32, 32, 3), np.uint8), split.labels[:0], split.index[:0])
        model = build_model(entry, num_classes=10, image_size=32)
        start_bytes = resident()
        watch = Watch()
        watch.start()
        begun = time.perf_counter()
        train(
            "convmixer", model, entry, train_split=split, val_split=empty, mean=[0.5] * 3,
            std=[0.25] * 3, classes=10, peak_lr=1e-4, seed=0, keep="last",
            execution=Execution(torch.device(device), "fp32"),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        watch.ended.set()
        watch.join()
    way = "streamed" if size > room(device) else "kept on the device"
    print(
        f"{count:,} generated images ({size / 2**30:.2f} GiB, {way}): "
        f"{seconds * 1e6 / count:.1f} µs per image; at most "
        f"{(watch.most - start_bytes) / 2**30:.2f} GiB of resident memory above the start."
    )


if __name__ == "__main__":
    main()
