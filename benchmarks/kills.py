"""Kill a run of two models at random moments; check that its results equal an uninterrupted run's.

`python -m benchmarks.kills [KILLS] [SEED]`. Each kill is SIGKILL of `dvc repro` and of all
processes that it started. Weights and histories are compared bit by bit; the exit code is 1 if they
differ.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.study import copy_study, environment, run

MODELS = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 500, "ema": 0.9},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 800},
}
DATA = {"train_size": 600, "val_size": 100, "test_size": 100}
COMMAND = ["dvc", "repro", *(f"train@{name}" for name in MODELS)]
SHORTEST, LONGEST = 0.5, 14.0  # seconds until a kill: from DVC's start to some epochs later


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each model's weights and of its history."""
    found = {}
    for name in MODELS:
        weights = (folder / "artifacts" / name / "model.safetensors").read_bytes()
        history = (folder / "reports" / "models" / name / "history.csv").read_bytes()
        found[f"{name}: weights"] = hashlib.sha256(weights).hexdigest()[:16]
        found[f"{name}: history"] = hashlib.sha256(history).hexdigest()[:16]
    return found


def resume_states(folder: Path) -> list[Path]:
    """Return the files from which killed trainings resume: `.resume/MODEL/RUN/FILE`."""
    return sorted(folder.glob(".resume/*/*/*"))


def main() -> None:
    """Run both, compare, and print a table."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    with tempfile.TemporaryDirectory() as temporary:
        uninterrupted, killed = Path(temporary, "uninterrupted"), Path(temporary, "killed")
        for folder in (uninterrupted, killed):
            copy_study(folder, {"data": DATA}, MODELS)
        run(uninterrupted, *COMMAND, OMP_NUM_THREADS="1")
        log = killed / "log.txt"
        for number in range(1, kills + 1):
            with log.open("a") as output:
                process = subprocess.Popen(
                    COMMAND, cwd=killed, env=environment(OMP_NUM_THREADS="1"),
                    stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
            wait = rng.uniform(SHORTEST, LONGEST)
            time.sleep(wait)
            if process.poll() is not None:
                sys.exit(f"the run ended after {number - 1} kills: give the models more epochs")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            models = dict.fromkeys(path.parts[-3] for path in resume_states(killed))
            saved = ", ".join(models) or "none"
            print(f"kill {number} after {wait:.1f} s; resume states of: {saved}", flush=True)
        run(killed, *COMMAND, OMP_NUM_THREADS="1")
        expected, found = digests(uninterrupted), digests(killed)
        resumed = log.read_text().count("resuming after epoch")
        left_over = resume_states(killed)
    for name, digest in expected.items():
        verdict = "equal" if digest == found[name] else "DIFFERENT"
        print(f"{name:20} {digest} {found[name]} {verdict}")
    print(f"{kills} kills, {resumed} resumed trainings; resume states left over: {len(left_over)}")
    if expected != found or left_over:
        sys.exit(1)


if __name__ == "__main__":
    main()
