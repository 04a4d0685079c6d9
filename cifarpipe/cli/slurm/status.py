"""The state of submitted experiments."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from cifarpipe.cli.slurm.plan import JOB, JOBS, read_plan
from cifarpipe.config.errors import UserError

ENDED = ("finished", "failed", "killed")


def show_jobs() -> bool:
    """Print the state of every experiment that was submitted here; return whether none failed.

    Raises:
        UserError: Nothing was submitted, or Slurm does not answer.
    """
    rows = list(submitted())
    if not rows:
        raise UserError("No experiment was submitted here: give --settings FILE or --queue.")
    for job, name, state in rows:
        print(f"{job}  {name}: {state}")
    return not any(state.startswith(("failed", "killed")) for _, _, state in rows)


def submitted() -> Iterator[tuple[str, str, str]]:
    """Yield job, name and state of every experiment that was submitted here, the oldest first."""
    for file in sorted(JOBS.glob(f"*/{JOB}"), key=lambda path: path.stat().st_mtime):
        job, plan = file.read_text(encoding="utf-8"), read_plan(file.parent)
        codes = {path.stem for path in file.parent.glob("*.code")}
        active = active_jobs(job) if len(codes) < len(plan.experiments) else {}
        for index, experiment in enumerate(plan.experiments):
            yield f"{job}_{index}", experiment.name, state_of(file.parent, index, active)


def unfinished() -> set[str]:
    """Return the names of the experiments that wait or run."""
    return {name for _, name, state in submitted() if not state.startswith(ENDED)}


def state_of(folder: Path, index: int, active: Mapping[int, str]) -> str:
    """Return the state of a job in words.

    Args:
        folder: Of its array.
        index: Its place in the array.
        active: The states of those that Slurm still knows, by their place.
    """
    code, log = folder / f"{index}.code", folder / f"{index}.log"
    if code.is_file():
        finished = code.read_text(encoding="utf-8") == "0"
        return "finished" if finished else f"failed, see {log}"
    return active.get(index, f"killed, see {log}")


def active_jobs(job: str) -> dict[int, str]:
    """Return the states of the jobs of an array that wait or run, by their place in it.

    Raises:
        UserError: Slurm does not answer.
    """
    if not shutil.which("squeue"):
        raise UserError("`squeue` is not installed here: run this on a login node of the cluster.")
    done = subprocess.run(
        ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%K %T"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "Invalid job id" not in done.stderr:  # of an array that it forgot
        raise UserError(f"`squeue` failed: {done.stderr.strip()}")
    rows = [line.split() for line in done.stdout.splitlines()]
    return {int(row[0]): row[1].lower() for row in rows if len(row) == 2 and row[0].isdecimal()}
