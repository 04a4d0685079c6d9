"""Kill a run of two models at random moments; show that it ends as if nothing had happened.

`python -m benchmarks.kills [KILLS] [SEED]`. Every kill is SIGKILL of `dvc repro` and of all that it
started. Compares weights and histories, bit by bit, with an unkilled run; exits
1 if they differ.
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
SHORTEST, LONGEST = 0.5, 14.0  # seconds until a kill: from DVC's own start into some epochs


def outcome(folder: Path) -> dict[str, str]:
    """Return a digest of each model's weights, and one of its history."""
    digests = {}
    for name in MODELS:
        weights = (folder / "artifacts" / name / "model.safetensors").read_bytes()
        rows = (folder / "reports" / "models" / name / "history.csv").read_bytes()
        digests[f"{name}: weights"] = hashlib.sha256(weights).hexdigest()[:16]
        digests[f"{name}: history"] = hashlib.sha256(rows).hexdigest()[:16]
    return digests


def epochs_saved(folder: Path) -> str:
    """Say which state files there are."""
    found = sorted(path.parent.parent.name for path in folder.glob(".resume/*/*/*"))
    return ", ".join(dict.fromkeys(found)) or "none"


def main() -> None:
    """Run both, print a table, and compare."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    with tempfile.TemporaryDirectory() as temporary:
        straight, killed = Path(temporary, "straight"), Path(temporary, "killed")
        for folder in (straight, killed):
            copy_study(folder, {"data": DATA}, MODELS)
        run(straight, *COMMAND, OMP_NUM_THREADS="1")
        for number in range(1, kills + 1):
            log = (killed / "log.txt").open("a")
            process = subprocess.Popen(
                COMMAND, cwd=killed, env=environment(OMP_NUM_THREADS="1"), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            wait = rng.uniform(SHORTEST, LONGEST)
            time.sleep(wait)
            if process.poll() is not None:
                sys.exit(f"the run ended after {number - 1} kills: give the models more epochs")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            print(
                f"kill {number} after {wait:.1f} s; states of: {epochs_saved(killed)}", flush=True
            )
        run(killed, *COMMAND, OMP_NUM_THREADS="1")
        first, second = outcome(straight), outcome(killed)
        resumed = (killed / "log.txt").read_text().count("going on after epoch")
        left = list(killed.glob(".resume/*/*/*"))
    for name, digest in first.items():
        print(
            f"{name:20} {digest} {second[name]} {'same' if digest == second[name] else 'DIFFERS'}"
        )
    print(f"{kills} kills, {resumed} times a run went on; state files left behind: {len(left)}")
    if first != second or left:
        sys.exit(1)


if __name__ == "__main__":
    main()
