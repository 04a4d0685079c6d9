"""Processes killed, disks full, files damaged: what is left, and whether a rerun mends it."""

import os
import signal
import subprocess
import time
from collections import Counter
from itertools import count
from pathlib import Path

from benchmarks.study import environment, run
from benchmarks.torture.setting import (
    MODEL,
    STAGES,
    Row,
    Study,
    chance,
    clear_refusal,
    command,
    damage,
    remove,
    start,
    without_write_rights,
)
from cifarpipe.training.resume import SLOTS

LIMITS = (0, 500, 2_000, 10_000, 30_000, 100_000, 300_000)  # bytes that a file may have


def kill_stage(study: Study, folder: Path, stage: str, kind: signal.Signals, times: int) -> Row:
    """Kill a stage at random moments, its old outputs in place or not; then let it run."""
    rng = chance(f"{stage} {kind}")
    lasts, found, killed = 60.0, [], 0
    for number in count():
        if killed == times:
            break
        if number % 2:
            remove(folder, stage, study)
        process, begun = start(folder, command(stage)), time.monotonic()
        # Now and then it is let run to its end, to know how long it takes at the moment.
        if number % 4 and not ended_within(process, rng.uniform(0.05, 1) * lasts):
            os.killpg(process.pid, kind)
            killed += 1
        process.communicate()
        if process.returncode == 0:
            lasts = time.monotonic() - begun
        found += study.faults(folder, stage, whole=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.faults(folder, stage, whole=True)
    return Row(f"{stage.split('@')[0]}: {kind.name} at a random moment", times,
               told(found, "no half output, the rerun right to the byte"), len(found))  # fmt: skip


def ended_within(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait for a process; say whether it came to its end."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_dvc(study: Study, folder: Path, times: int) -> Row:
    """Kill `dvc repro` and all that it started, again and again, until nothing is left to do."""
    rng = chance(0)
    ends = 0
    for _ in range(times):
        process = start(folder, ["dvc", "repro"])
        time.sleep(rng.uniform(0.5, 9))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            ends += 1
            start_anew(folder)
        process.communicate()
    run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
    found = [] if (folder / "dvc.lock").read_bytes() == study.lock else ["dvc.lock differs"]
    found += [fault for stage in STAGES for fault in study.faults(folder, stage, whole=True)]
    return Row("`dvc repro` from nothing: SIGKILL of all its processes", times,
               told(found, f"{ends} came to their end before; in the end dvc.lock is the same"),
               len(found))  # fmt: skip


def start_anew(folder: Path) -> None:
    """Forget all results."""
    for path in ("data/prepared", "artifacts", "reports", "dvc.lock", ".dvc/cache", ".dvc/tmp"):
        subprocess.run(["rm", "-rf", str(folder / path)], check=True)


def two_at_once(study: Study, folder: Path, times: int) -> Row:
    """Start `dvc repro` twice at a time."""
    found = []
    ended: Counter[str] = Counter()
    for _ in range(times):
        start_anew(folder)
        both = [start(folder, ["dvc", "repro"]) for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        for process, text in zip(both, said, strict=True):
            locked = "lock" in text.lower()
            ended["done" if process.returncode == 0 else "told"] += 1
            if process.returncode and not locked:
                found.append(f"failed: {text[-200:]}")
        run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
        if (folder / "dvc.lock").read_bytes() != study.lock:
            found.append("dvc.lock differs")
    outcome = told(found, f"{ended['told']} told of the other, all ended right")
    return Row("two `dvc repro` at once, from nothing", times, outcome, len(found))


def full_disk(study: Study, folder: Path, stage: str) -> Row:
    """Let a stage write files up to some size (RLIMIT_FSIZE), as a disk that fills."""
    found, refused = [], 0
    for limit in LIMITS:
        remove(folder, stage, study)
        process = start(folder, ["prlimit", f"--fsize={limit}", *command(stage)])
        _, said = process.communicate()
        if process.returncode:
            refused += 1
            found += [] if clear_refusal(process.returncode, said) else [f"said: {said[-300:]}"]
        found += study.faults(folder, stage, whole=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.faults(folder, stage, whole=True)
    return Row(f"{stage.split('@')[0]}: no room for files of {LIMITS[0]} … {LIMITS[-1]:,} bytes",
               len(LIMITS), told(found, f"{refused} refused in a line; the rerun right"),
               len(found))  # fmt: skip


def read_only(study: Study, folder: Path, stage: str) -> Row:
    """Run a stage that may read everything and write nothing."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    process = start(folder, without_write_rights(command(stage)))
    _, said = process.communicate()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o755)
    found = [] if clear_refusal(process.returncode, said) else [f"said: {said[-300:]}"]
    found += study.faults(folder, stage, whole=True)
    return Row(f"{stage.split('@')[0]}: outputs in folders that are read-only", 1,
               told(found, "refused in a line; what was there is as it was"),
               len(found))  # fmt: skip


# By what is damaged: a file, and a stage that reads it and can't know it from elsewhere.
READERS = {
    "data/prepared/train_images.npy": f"train@{MODEL}",
    "data/prepared/test_labels.npy": f"evaluate@{MODEL}",
    "data/prepared/test_index.npy": f"gradcam@{MODEL}",
    "data/prepared/dataset.json": f"evaluate@{MODEL}",
    f"artifacts/{MODEL}/model.safetensors": f"evaluate@{MODEL}",
    f"artifacts/{MODEL}/predictions.csv": f"misclassified@{MODEL}",
    f"artifacts/{MODEL}/cams.npz": "report",
}


def damaged_for_stage(study: Study, folder: Path, path: str, times: int) -> Row:
    """Damage a file and run a stage that reads it, without DVC, which would notice at once."""
    rng = chance(path)
    stage = READERS[path]
    kinds: Counter[str] = Counter()
    found = []
    sound = (study.folder / path).read_bytes()
    for _ in range(times):
        kinds[damage(folder / path, rng)] += 1
        process = start(folder, command(stage))
        _, said = process.communicate()
        if process.returncode == 0:
            found += study.faults(folder, stage, whole=True)
        elif not clear_refusal(process.returncode, said):
            found.append(f"said: {said[-300:]}")
        (folder / path).write_bytes(sound)
    what = f"`{path}` damaged ({kinds['flip']} × a bit, {kinds['cut']} × cut), read by {stage}"
    return Row(what, times, told(found, "refused in a line, or the same output"), len(found))


def damaged_for_dvc(study: Study, folder: Path, path: str, times: int) -> Row:
    """Damage a file and run `dvc repro`."""
    rng = chance(path)
    found = []
    for _ in range(times):
        damage(folder / path, rng)
        run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
        if (folder / "dvc.lock").read_bytes() != study.lock:
            found.append("dvc.lock differs")
        found += [fault for stage in STAGES for fault in study.faults(folder, stage, whole=True)]
    return Row(f"`{path}` damaged, then `dvc repro`", times,
               told(found, "everything as it was"), len(found))  # fmt: skip


def damaged_resume(study: Study, folder: Path, times: int) -> Row:
    """Kill a training, damage one of the states it left, and let it go on."""
    stage = f"train@{MODEL}"
    rng = chance("resume")
    found, damaged = [], 0
    for _ in range(times):
        remove(folder, stage, study)
        process = start(folder, command(stage))
        while process.poll() is None and not (states := states_of(folder)):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if states := states_of(folder):
            damage(rng.choice(states), rng)
            damaged += 1
        run(folder, *command(stage), OMP_NUM_THREADS="1")
        found += study.faults(folder, stage, whole=True)
    return Row("train: killed, a state to go on from damaged, started again", damaged,
               told(found, "right to the byte"), len(found))  # fmt: skip


def states_of(folder: Path) -> list[Path]:
    """Return the files that a training which was stopped goes on from."""
    return sorted(path for path in folder.glob(".resume/*/*/*") if path.name in SLOTS)


def clock(study: Study, folder: Path) -> Row:
    """Give all outputs times long ago and far ahead."""
    found = []
    years = (1980, 2099)
    for year in years:
        for stage in STAGES:
            for path in study.outs[stage]:
                subprocess.run(["touch", "-d", f"{year}-01-01", str(folder / path)], check=True)
        done = subprocess.run(["dvc", "repro"], cwd=folder, env=environment(), check=False,
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode or "Running stage" in done.stdout:
            found.append(f"ran: {done.stdout[-200:]}")
    return Row("all outputs dated 1980, then 2099, then `dvc repro`", len(years),
               told(found, "nothing ran"), len(found))  # fmt: skip


def little_memory(study: Study, folder: Path, times: int) -> Row:
    """Run evaluate with less and less address space."""
    stage = f"evaluate@{MODEL}"
    found, refused = [], 0
    for number in range(times):
        remove(folder, stage, study)
        process = start(folder, ["prlimit", f"--as={(400 + 400 * number) << 20}", *command(stage)])
        process.communicate()
        refused += process.returncode != 0
        found += study.faults(folder, stage, whole=process.returncode == 0)
    run(folder, *command(stage), OMP_NUM_THREADS="1")
    found += study.faults(folder, stage, whole=True)
    return Row("evaluate: from 0.4 GiB of address space on", times,
               told(found, f"{refused} ended with an error, no half output; the rerun right"),
               len(found))  # fmt: skip


def told(found: list[str], well: str) -> str:
    """Return what to say: all is well, or the first fault."""
    return well if not found else f"WRONG: {found[0]}"
