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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study import copy_study, environment, resume_files, run

MODELS: dict[str, dict[str, Any]] = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 500, "ema": 0.9},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 800},
}
DATA: dict[str, Any] = {"train_size": 600, "val_size": 100, "test_size": 100}
SHORTEST, LONGEST = 0.5, 14.0  # seconds until a kill: from DVC's start to some epochs later

Moment = Callable[[Path, subprocess.Popen[bytes]], str]
"""Waits for the moment of a kill, given the study's folder and its process; describes it."""


@dataclass(frozen=True)
class Comparison:
    """An uninterrupted run and a killed one."""

    expected: dict[str, str]
    """Digests of the uninterrupted run's files, by what they hold."""
    found: dict[str, str]
    """Those of the killed run."""
    resumed: int
    """Trainings that resumed after an epoch."""
    left_over: int
    """Resume states that were not removed."""

    @property
    def equal(self) -> bool:
        """Whether the results are equal, and nothing is left over."""
        return self.expected == self.found and not self.left_over


def after_seconds(seconds: float) -> Moment:
    """Return the moment after a time."""

    def wait(_folder: Path, _process: subprocess.Popen[bytes]) -> str:
        time.sleep(seconds)
        return f"{seconds:.1f} s"

    return wait


def after_epochs(epochs: int, *, models: int) -> Moment:
    """Return the moment at which so many models have trained for so many epochs.

    DVC trains the models in any order.
    """

    def wait(folder: Path, process: subprocess.Popen[bytes]) -> str:
        def logs() -> list[Path]:
            return list(folder.glob("logs/[!.]*.csv"))  # hidden ones are being written

        for old in logs():  # those of the last try
            old.unlink()
        while process.poll() is None:
            rows = [log.read_text(encoding="utf-8").count("\n") - 1 for log in logs()]
            if sum(count >= epochs for count in rows) >= models:
                break
            time.sleep(0.02)
        return f"{epochs} epochs of {models} models"

    return wait


def compare_runs(
    moments: Sequence[Moment], models: Mapping[str, dict[str, Any]], **variables: str
) -> Comparison:
    """Train without interruption, and with a kill at each moment.

    Args:
        moments: When to kill.
        models: The demo's models to train; for each, the keys to set.
        **variables: Of the environment.
    """
    command = ["dvc", "repro", *(f"train@{name}" for name in models)]
    with tempfile.TemporaryDirectory() as temporary:
        uninterrupted, killed = Path(temporary, "uninterrupted"), Path(temporary, "killed")
        for folder in (uninterrupted, killed):
            copy_study(folder, {"data": DATA}, dict(models))
        run(uninterrupted, *command, **variables)
        log = killed / "log.txt"
        for number, moment in enumerate(moments, start=1):
            with log.open("a") as output:
                process = subprocess.Popen(
                    command, cwd=killed, env=environment(**variables),
                    stdout=output, stderr=output, start_new_session=True,
                )  # fmt: skip
            when = moment(killed, process)
            if process.poll() is not None:
                print(log.read_text(), file=sys.stderr)
                sys.exit(f"the run ended after {number - 1} kills: give the models more epochs")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            names = dict.fromkeys(path.parts[-3] for path in resume_files(killed))
            saved = ", ".join(names) or "none"
            print(f"kill {number} after {when}; resume states of: {saved}", flush=True)
        output_of_last = run(killed, *command, **variables)
        return Comparison(
            expected=digests(uninterrupted, models),
            found=digests(killed, models),
            resumed=(log.read_text() + output_of_last).count("resuming after epoch"),
            left_over=len(resume_files(killed)),
        )


def digests(folder: Path, models: Mapping[str, object]) -> dict[str, str]:
    """Return a digest of each model's weights and of its history."""
    found = {}
    for name in models:
        weights = (folder / "artifacts" / name / "model.safetensors").read_bytes()
        history = (folder / "reports" / "models" / name / "history.csv").read_bytes()
        found[f"{name}: weights"] = hashlib.sha256(weights).hexdigest()[:16]
        found[f"{name}: history"] = hashlib.sha256(history).hexdigest()[:16]
    return found


def main() -> None:
    """Run both, compare, and print a table."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)  # noqa: S311
    moments = [after_seconds(rng.uniform(SHORTEST, LONGEST)) for _ in range(kills)]
    runs = compare_runs(moments, MODELS, OMP_NUM_THREADS="1")
    for name, digest in runs.expected.items():
        verdict = "equal" if digest == runs.found[name] else "DIFFERENT"
        print(f"{name:20} {digest} {runs.found[name]} {verdict}")
    print(
        f"{kills} kills, {runs.resumed} resumed trainings; resume states left over: "
        f"{runs.left_over}"
    )
    if not runs.equal:
        sys.exit(1)


if __name__ == "__main__":
    main()
