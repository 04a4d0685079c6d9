"""Fault injection and fuzzing of the pipeline; `make torture`.

`python -m benchmarks.torture [--quick]` prints a table of all trials; the exit code is 1 if an
outcome is wrong. Two trials run at a time, and a third process fuzzes parameter files and images.
"""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from benchmarks.study import ROOT
from benchmarks.torture import faults, sizes
from benchmarks.torture.fuzzing import fuzz_images, fuzz_parameters
from benchmarks.torture.harness import STAGES, Row, Study, make_study

Trial = Callable[[Path], Row]
EXAMPLE = ROOT / "params.yaml"


def trials(study: Study, shared: Path, *, quick: bool) -> list[Trial]:
    """Return all trials; each is called with a folder of its own.

    Args:
        study: A finished one.
        shared: Folder for images that trials read.
        quick: Fewer repetitions.
    """
    times = 3 if quick else 20
    found: list[Trial] = []

    def on_copy(trial: Callable[..., Row], *arguments: object) -> None:
        found.append(lambda folder: trial(study, study.copy(folder), *arguments))

    found.append(lambda folder: sizes.many_models(folder, 50))  # takes the longest
    on_copy(faults.kill_dvc, times)
    for stage in STAGES:
        for kind in (signal.SIGKILL, signal.SIGTERM):
            on_copy(faults.kill_stage, stage, kind, times)
    for stage in STAGES:
        on_copy(faults.full_disk, stage)
        if stage != "check":  # which writes only what changed
            on_copy(faults.read_only, stage)
    for path, stage in faults.READERS:
        on_copy(faults.damaged_for_stage, path, stage, times)
    on_copy(faults.damaged_resume, times)
    for path in dict.fromkeys(["data/source.json", *(path for path, _ in faults.READERS)]):
        on_copy(faults.damaged_for_dvc, path, max(1, times // 4))
    on_copy(faults.two_at_once, 1 if quick else 3)
    on_copy(faults.file_times)
    on_copy(faults.little_memory, 3 if quick else 12)
    tiny = {"train_size": 20, "val_size": 3, "test_size": 1}
    found += [
        lambda folder: sizes.small_study(folder, "one test image", {"data": tiny}, {}),
        lambda folder: sizes.small_study(
            folder, "a batch larger than the data", {}, {"batch_size": 5000}
        ),
        lambda folder: sizes.small_study(
            folder, "a last batch of one image (BatchNorm)", {}, {"batch_size": 299}
        ),
        lambda folder: sizes.small_study(
            folder, "one class", {"data": tiny | {"val_size": 4, "test_size": 5}}, {},
            images=sizes.make_images(shared / "one", 1, 30),
        ),
        lambda folder: sizes.small_study(
            folder, "1,000 classes", {"data": {"train_size": 2000, "val_size": 1000,
            "test_size": 2000}}, {}, images=sizes.make_images(shared / "thousand", 1000, 3),
        ),
        lambda folder: sizes.many_images(folder, 20_000 if quick else 500_000),
    ]  # fmt: skip
    return found


def main() -> int:
    """Run all trials, and return the exit code."""
    quick = "--quick" in sys.argv[1:]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        home.chmod(0o755)  # so that processes without write permission can read it
        study = make_study(home / "study")
        all_trials = trials(study, home, quick=quick)
        # Fuzzing needs a main thread, which can receive the signal of a timeout.
        with ProcessPoolExecutor(1) as fuzzers, ThreadPoolExecutor(2) as pool:
            files = fuzzers.submit(fuzz_parameters, 300 if quick else 10_000, EXAMPLE)
            images = fuzzers.submit(fuzz_images, 200 if quick else 5_000)
            tried = [
                pool.submit(_run_and_print, trial, home / f"trial_{number}")
                for number, trial in enumerate(all_trials)
            ]
            rows = [each.result() for each in (*tried, files, images)]
    print("\n| trial | times | outcome |\n| --- | ---: | --- |")
    for row in rows:
        print(f"| {row.what} | {row.times:,} | {row.outcome} |")
    wrong = sum(row.wrong for row in rows)
    print(f"\n{wrong} wrong, in {(time.monotonic() - begun) / 60:.0f} minutes")
    return 1 if wrong else 0


def _run_and_print(trial: Trial, folder: Path) -> Row:
    try:
        row = trial(folder)
    except SystemExit as error:  # a command that should have succeeded did not
        row = Row(folder.name, 1, f"WRONG: {error}", 1)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{row.what} ({row.times}): {row.outcome}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
