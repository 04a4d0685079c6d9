"""Break the pipeline in many ways; print what came of it as a table; exit 1 if anything is wrong.

`make torture`, or `python -m benchmarks.torture [--quick]`. Two things are tried at a time, and
parameter files beside them.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from benchmarks.study import ROOT
from benchmarks.torture import faults, load
from benchmarks.torture.hostile import strange_parameters, strange_pictures
from benchmarks.torture.setting import STAGES, Row, Study, make_study

Trial = Callable[[Path], Row]
EXAMPLE = ROOT / "params.yaml"


def trials(study: Study, shared: Path, *, quick: bool) -> list[Trial]:
    """Return all that is tried, each in a folder of its own."""
    times = 3 if quick else 20
    ways: list[Trial] = []

    def on_copy(way: Callable[..., Row], *arguments: object) -> None:
        ways.append(lambda folder: way(study, study.copy(folder), *arguments))

    ways.append(lambda folder: load.many_models(folder, 50))  # takes longest
    on_copy(faults.kill_dvc, times)
    for stage in STAGES:
        for kind in (signal.SIGKILL, signal.SIGTERM):
            on_copy(faults.kill_stage, stage, kind, times)
    for stage in STAGES:
        on_copy(faults.full_disk, stage)
        on_copy(faults.read_only, stage)
    for path in faults.READERS:
        on_copy(faults.damaged_for_stage, path, times)
    on_copy(faults.damaged_resume, times)
    for path in faults.READERS:
        on_copy(faults.damaged_for_dvc, path, max(1, times // 4))
    on_copy(faults.two_at_once, 1 if quick else 3)
    on_copy(faults.clock)
    on_copy(faults.little_memory, 3 if quick else 12)
    tiny = {"train_size": 20, "val_size": 3, "test_size": 1}
    ways += [
        lambda folder: load.small_study(folder, "one test image", {"data": tiny}, {}),
        lambda folder: load.small_study(
            folder, "a batch larger than the data", {}, {"batch_size": 5000}
        ),
        lambda folder: load.small_study(
            folder, "a last batch of one image (BatchNorm)", {}, {"batch_size": 299}
        ),
        lambda folder: load.small_study(
            folder, "one class", {"data": tiny | {"val_size": 4, "test_size": 5}}, {},
            images=load.make_images(shared / "one", 1, 30),
        ),
        lambda folder: load.small_study(
            folder, "1,000 classes", {"data": {"train_size": 2000, "val_size": 1000,
            "test_size": 2000}}, {}, images=load.make_images(shared / "thousand", 1000, 3),
        ),
        lambda folder: load.many_images(folder, 20_000 if quick else 500_000),
    ]  # fmt: skip
    return ways


def main() -> int:
    """Run all, and return the exit code."""
    quick = "--quick" in sys.argv[1:]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        home.chmod(0o755)  # for processes that may not write
        study = make_study(home / "study")
        ways = trials(study, home, quick=quick)
        # Its main thread can be told that time is up.
        with ProcessPoolExecutor(1) as beside, ThreadPoolExecutor(2) as pool:
            files = beside.submit(strange_parameters, 300 if quick else 10_000, EXAMPLE)
            pictures = beside.submit(strange_pictures, 200 if quick else 5_000)
            tried = [
                pool.submit(_shown, way, home / f"trial_{number}")
                for number, way in enumerate(ways)
            ]
            rows = [each.result() for each in (*tried, files, pictures)]
    print("\n| tried | times | outcome |\n| --- | ---: | --- |")
    for row in rows:
        print(f"| {row.what} | {row.times:,} | {row.outcome} |")
    wrong = sum(row.wrong for row in rows)
    print(f"\n{wrong} wrong, in {(time.monotonic() - begun) / 60:.0f} minutes")
    return 1 if wrong else 0


def _shown(way: Trial, folder: Path) -> Row:
    import shutil

    row = way(folder)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{row.what} ({row.times}): {row.outcome}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
