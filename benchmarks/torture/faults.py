"""Fault injection: killed processes, full disks, damaged files.

Checks that no incomplete output is left, that damage is noticed, and that a rerun restores the same
bytes.
"""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from itertools import count
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from benchmarks.study import environment, resume_files, run
from benchmarks.torture.harness import (
    LOCKS,
    MODEL,
    STAGES,
    Row,
    Study,
    command,
    damage,
    in_read_only_folder,
    is_clear_error,
    remove_outputs,
    seeded,
    start,
)
from cifarpipe.training.resume import SLOTS

LIMITS = (0, 500, 2_000, 10_000, 30_000, 100_000, 300_000)  # largest size of a file, in bytes

# Files, and for each a stage that reads it and must notice that it is damaged.
READERS = (
    ("data/prepared/train_images.npy", f"train@{MODEL}"),
    ("data/prepared/test_labels.npy", f"evaluate@{MODEL}"),
    ("data/prepared/test_index.npy", f"gradcam@{MODEL}"),
    ("data/prepared/dataset.json", f"evaluate@{MODEL}"),
    (f"artifacts/{MODEL}/model.safetensors", f"evaluate@{MODEL}"),
    (f"artifacts/{MODEL}/predictions.csv", f"misclassified@{MODEL}"),
    (f"artifacts/{MODEL}/cams.npz", f"figures@{MODEL}"),
    (f"artifacts/{MODEL}/cams.npz", "report"),
)


def kill_stage(study: Study, folder: Path, stage: str, kind: signal.Signals, times: int) -> Row:
    """Kill a stage at random moments, with or without its old outputs; then run it to its end."""
    rng = seeded(f"{stage} {kind}")
    duration, found, killed = 60.0, [], 0
    for number in count():
        if killed == times:
            break
        if number % 2:
            remove_outputs(folder, stage, study)
        process, begun = start(folder, command(stage)), time.monotonic()
        # Every fourth run is not killed, to measure how long one takes at the moment.
        if number % 4 and not ends_within(process, rng.uniform(0.05, 1) * duration):
            os.killpg(process.pid, kind)
            killed += 1
        process.communicate()
        if process.returncode == 0:
            duration = time.monotonic() - begun
        found += study.differences(folder, stage, complete=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.differences(folder, stage, complete=True)
    return Row(
        f"{name_of(stage)}: {kind.name} at a random moment",
        times,
        outcome(found, "no incomplete output, the rerun equal to the byte"),
        len(found),
    )


def ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait for a process; return whether it ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_dvc(study: Study, folder: Path, times: int) -> Row:
    """Kill `dvc repro` and all that it started, again and again, and let it end at last."""
    rng = seeded(0)
    ended = incomplete = 0
    for _ in range(times):
        process = start(folder, ["dvc", "repro"])
        time.sleep(rng.uniform(0.5, 9))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            ended += 1
            delete_results(folder)
        process.communicate()
        incomplete += delete_incomplete_locks(folder)
    run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
    found = study.all_differences(folder)
    return Row(
        "`dvc repro` from the start: SIGKILL of all its processes",
        times,
        outcome(
            found,
            f"{ended} ended before the kill; `dvc.lock` was incomplete, and deleted, {incomplete} "
            f"times; the results are the same in the end",
        ),
        len(found),
    )


def delete_incomplete_locks(folder: Path) -> int:
    """Delete lock files that DVC was writing when it was killed; return their number."""
    incomplete = [path for lock in LOCKS if (path := folder / lock).exists() and not whole(path)]
    for path in incomplete:
        path.unlink()
    return len(incomplete)


def whole(lock: Path) -> bool:
    """Return whether DVC accepts a lock file."""
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(lock.read_text(encoding="utf-8")))
    except (yaml.YAMLError, Invalid):
        return False
    return True


def delete_results(folder: Path) -> None:
    """Delete all results of a study, the cache included."""
    for path in ("data/prepared", "artifacts", "reports", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(folder / path, ignore_errors=True)
    for path in (*LOCKS, "data/source.json"):
        (folder / path).unlink(missing_ok=True)


def two_at_once(study: Study, folder: Path, times: int) -> Row:
    """Start `dvc repro` twice at the same time."""
    found = []
    refused = 0
    for _ in range(times):
        delete_results(folder)
        both = [start(folder, ["dvc", "repro"]) for _ in range(2)]
        errors = [process.communicate()[1] for process in both]
        for process, text in zip(both, errors, strict=True):
            if process.returncode:
                refused += 1
                found += [] if "lock" in text.lower() else [f"failed: {text[-200:]}"]
        run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
        found += study.all_differences(folder)
    good = f"{refused} refused since the other one was running; all results the same"
    return Row("two `dvc repro` at once, from the start", times, outcome(found, good), len(found))


def full_disk(study: Study, folder: Path, stage: str) -> Row:
    """Limit the size of the files that a stage may write (RLIMIT_FSIZE), like a full disk."""
    found, refused = [], 0
    for limit in LIMITS:
        remove_outputs(folder, stage, study)
        process = start(folder, ["prlimit", f"--fsize={limit}", *command(stage)])
        found += unclear_error(process)
        refused += process.returncode != 0
        found += study.differences(folder, stage, complete=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.differences(folder, stage, complete=True)
    return Row(
        f"{name_of(stage)}: no space for files of {LIMITS[0]} … {LIMITS[-1]:,} bytes",
        len(LIMITS),
        outcome(found, f"{refused} ended with a clear error; the rerun is equal"),
        len(found),
    )


def read_only(study: Study, folder: Path, stage: str) -> Row:
    """Run a stage that may read everything and write nothing."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    process = start(folder, in_read_only_folder(command(stage)))
    found = unclear_error(process)
    if process.returncode == 0:
        found.append("succeeded without writing anything")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o755)
    found += study.differences(folder, stage, complete=True)
    return Row(
        f"{name_of(stage)}: outputs in read-only folders",
        1,
        outcome(found, "a clear error; existing files are unchanged"),
        len(found),
    )


def damaged_for_stage(study: Study, folder: Path, path: str, stage: str, times: int) -> Row:
    """Damage a file and run a stage that reads it, without DVC, which would notice at once."""
    rng = seeded(path)
    kinds: Counter[str] = Counter()
    found = []
    intact = (study.folder / path).read_bytes()
    for _ in range(times):
        kinds[damage(folder / path, rng)] += 1
        process = start(folder, command(stage))
        found += unclear_error(process)
        if process.returncode == 0:
            found += study.differences(folder, stage, complete=True)
        (folder / path).write_bytes(intact)
    return Row(
        f"`{path}` damaged ({kinds['flip']} × a bit flipped, {kinds['truncation']} × truncated), "
        f"read by {name_of(stage)}",
        times,
        outcome(found, "a clear error, or the same output"),
        len(found),
    )


def damaged_for_dvc(study: Study, folder: Path, path: str, times: int) -> Row:
    """Damage a file and run `dvc repro`."""
    rng = seeded(path)
    found = []
    for _ in range(times):
        damage(folder / path, rng)
        run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
        found += study.all_differences(folder)
    good = "everything restored"
    return Row(f"`{path}` damaged, then `dvc repro`", times, outcome(found, good), len(found))


def states_of(folder: Path) -> list[Path]:
    """Return the files from which a killed training resumes, without half-written ones."""
    return [path for path in resume_files(folder) if path.name in SLOTS]


def damaged_resume(study: Study, folder: Path, times: int) -> Row:
    """Kill a training, damage one of its resume states, and start it again."""
    stage = f"train@{MODEL}"
    rng = seeded("resume")
    found, damaged = [], 0
    for _ in range(times):
        remove_outputs(folder, stage, study)
        process = start(folder, command(stage))
        while process.poll() is None and not states_of(folder):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if states := states_of(folder):
            damage(rng.choice(states), rng)
            damaged += 1
        run(folder, *command(stage), OMP_NUM_THREADS="1")
        found += study.differences(folder, stage, complete=True)
    return Row(
        "train: killed, a resume state damaged, started again",
        damaged,
        outcome(found, "equal to the byte"),
        len(found),
    )


def file_times(study: Study, folder: Path) -> Row:
    """Set the times of all outputs to the distant past and future."""
    found = []
    years = (1980, 2099)
    for year in years:
        for stage in STAGES:
            for path in study.outs[stage]:
                subprocess.run(["touch", "-d", f"{year}-01-01", str(folder / path)], check=True)
        done = subprocess.run(["dvc", "repro"], cwd=folder, env=environment(), check=False,
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode or stages_run(done.stdout):
            found.append(f"not up to date: {done.stdout[-200:]}")
    return Row(
        "all outputs dated 1980, then 2099, then `dvc repro`",
        len(years),
        outcome(found, "no stage ran"),
        len(found),
    )


def stages_run(output: str) -> int:
    """Return how many stages a `dvc repro` ran, besides `check`, which always runs."""
    lines = [line for line in output.splitlines() if line.startswith("Running stage")]
    return sum(":check'" not in line for line in lines)


def little_memory(study: Study, folder: Path, times: int) -> Row:
    """Run evaluate with different limits of its address space."""
    stage = f"evaluate@{MODEL}"
    found, failed = [], 0
    for number in range(times):
        remove_outputs(folder, stage, study)
        limit = (400 + 400 * number) << 20
        process = start(folder, ["prlimit", f"--as={limit}", *command(stage)])
        process.communicate()
        failed += process.returncode != 0
        found += study.differences(folder, stage, complete=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.differences(folder, stage, complete=True)
    return Row(
        f"evaluate: address space of 0.4 to {0.4 * times:.1f} GiB",
        times,
        outcome(found, f"{failed} failed, no incomplete output; the rerun is equal"),
        len(found),
    )


def unclear_error(process: subprocess.Popen[str]) -> list[str]:
    """Wait for a process; return a line if it failed without a clear error message."""
    _, stderr = process.communicate()
    if process.returncode == 0 or is_clear_error(process.returncode, stderr):
        return []
    return [f"exit code {process.returncode}: {stderr[-300:]}"]


def name_of(stage: str) -> str:
    """Return a stage's name without its model."""
    return stage.partition("@")[0]


def outcome(found: list[str], good: str) -> str:
    """Return the outcome of a trial: `good`, or the first thing that is wrong."""
    return f"WRONG: {found[0]}" if found else good
