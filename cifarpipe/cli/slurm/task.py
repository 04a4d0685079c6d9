"""One job of an array: `python -m cifarpipe.cli.slurm.task FOLDER INDEX`."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifarpipe.cli.dvc_command import environment as activated
from cifarpipe.cli.slurm.plan import LOCAL, Plan, PlannedExperiment, read_plan
from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import SHARE_GPUS
from cifarpipe.config.schema import PARAMS_FILE
from cifarpipe.store.outputs import write_text


def main(folder: Path, index: int) -> int:
    """Run one experiment, and leave its exit code in the array's folder."""
    code_file = folder / f"{index}.code"
    code_file.unlink(missing_ok=True)
    try:
        code = run_task(folder, index)
    except (UserError, OSError, IndexError) as error:
        print(f"error: {error}", flush=True)
        code = 1
    write_text(code_file, str(code))
    return code


def run_task(folder: Path, index: int) -> int:
    """Run one experiment in a clone of its own, and send it to the repository.

    Args:
        folder: Of the array.
        index: The experiment's place in the plan.

    Returns:
        The exit code of the first command that failed, or 0.
    """
    plan = read_plan(folder)
    experiment = plan.experiments[index]
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(
        prefix="cifarpipe-", dir=os.environ.get("SLURM_TMPDIR"), ignore_cleanup_errors=True
    ) as temporary:
        clone = Path(temporary)
        if code := run_all(git_commands(plan, experiment), clone, plan):
            return code
        if plan.local_config:
            (clone / LOCAL).write_text(plan.local_config, encoding="utf-8")
        if experiment.params is not None:
            (clone / PARAMS_FILE).write_text(experiment.params, encoding="utf-8")
        return run_all(dvc_commands(plan, experiment), clone, plan)


def run_all(commands: Sequence[Sequence[str]], folder: Path, plan: Plan) -> int:
    """Print and run commands until one fails; return its exit code, or 0."""
    for command in commands:
        print("$", shlex.join(command), flush=True)
        done = subprocess.run(command, cwd=folder, env=environment(plan), check=False)
        if done.returncode:
            return done.returncode
    return 0


def git_commands(plan: Plan, experiment: PlannedExperiment) -> list[list[str]]:
    """Return what a job runs in an empty folder to make its clone there."""
    name, email = plan.author
    return [
        ["git", "clone", "--quiet", "--no-checkout", plan.origin, "."],
        ["git", "checkout", "--quiet", "--detach", experiment.revision],
        ["git", "config", "user.name", name],
        ["git", "config", "user.email", email],
    ]


def dvc_commands(plan: Plan, experiment: PlannedExperiment) -> list[list[str]]:
    """Return what a job runs in its clone, whose files are in place."""
    overrides = [word for value in experiment.overrides for word in ("-S", value)]
    run = ["dvc", "exp", "run", "--name", experiment.name, *overrides]
    push = ["dvc", "exp", "push", "origin", experiment.name]
    if plan.cache is not None:
        return [["dvc", "cache", "dir", "--local", plan.cache], run, [*push, "--no-cache"]]
    # A relative path would be looked up in the clone.
    remotes = [
        ["dvc", "remote", "modify", "--local", name, "url", path]
        for name, path in plan.remotes.items()
    ]
    return [*remotes, [*run, "--pull"], push]


def environment(plan: Plan) -> dict[str, str]:
    """Return the environment of a job's commands."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    threads = {"OMP_NUM_THREADS": cores} if cores else {}
    # Slurm gives each job GPUs of its own: nothing is to wait.
    return activated() | threads | {"CIFARPIPE_DATA": plan.raw, SHARE_GPUS: "1"}


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
