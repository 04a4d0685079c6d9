"""`cifarpipe slurm`: experiments as an array of jobs on a Slurm cluster.

Each job runs one experiment in a clone of its own, and sends it back to the repository that it was
cloned from, where `dvc exp show` and `cifarpipe sweep` find it.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import SHARE_GPUS
from cifarpipe.store.outputs import write_json, write_text
from cifarpipe.store.paths import raw_root

JOBS = Path(".dvc/tmp/slurm")  # has a folder for each array
PLAN, JOB = "plan.json", "job"  # in it; each job leaves its output and its exit code, too
LOCAL = Path(".dvc/config.local")


@dataclass(frozen=True)
class Experiment:
    """What one job runs."""

    name: str
    revision: str
    """The commit that it starts from."""
    overrides: list[str]
    """Values of the option `-S` of `dvc exp run`."""
    params: str | None
    """Content of params.yaml; None: that of the commit."""


@dataclass(frozen=True)
class Plan:
    """What all jobs of an array need to know."""

    origin: str
    """The git repository that is cloned, and gets the experiments."""
    cache: str | None
    """Folder of DVC's cache that all nodes see; None: files travel by DVC's remote."""
    raw: str
    """The raw-data folder."""
    author: list[str]
    """Name and e-mail address for git."""
    experiments: list[Experiment]


def submit(
    settings: Path | None, *, queue: bool, name: str | None, origin: str | None, options: list[str]
) -> None:
    """Submit experiments as an array of jobs.

    Args:
        settings: A file with a line of `-S` options per experiment; None for none.
        queue: Whether to take the experiments of DVC's queue.
        name: Begins the names of those of `settings`; by default the file's name.
        origin: A git repository in place of this folder, if the nodes do not see it.
        options: Of `sbatch`.

    Raises:
        UserError: There is no experiment, one can't be run elsewhere, or Slurm refuses the jobs.
    """
    if settings is not None and queue:
        raise UserError("Give either --settings FILE or --queue, not both.")
    if not shutil.which("sbatch"):
        raise UserError("`sbatch` is not installed here: run this on a login node of a cluster.")
    if settings is not None:
        experiments = read_settings(settings, name or settings.stem)
    else:
        experiments = queued_experiments()
    refuse_known([each.name for each in experiments])
    plan = Plan(
        origin=origin or str(Path.cwd()),
        cache=None if origin else output("dvc", "cache", "dir"),
        raw=str(raw_root().resolve()),
        author=[output("git", "config", key) for key in ("user.name", "user.email")],
        experiments=experiments,
    )
    JOBS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="", dir=JOBS)).resolve()
    write_json(folder / PLAN, asdict(plan))
    command = [
        "sbatch", "--parsable", f"--array=0-{len(experiments) - 1}", "--job-name=cifarpipe",
        f"--output={folder}/%a.log", *options, "--wrap", task_command(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder)
        raise UserError(f"Slurm refuses the jobs: {done.stderr.strip()}")
    if queue:
        output("dvc", "queue", "remove", *(each.name for each in experiments))
    count, job = len(experiments), done.stdout.strip().split(";")[0]
    write_text(folder / JOB, job)
    print(
        f"Job {job}: {count} experiment{'s' * (count > 1)}, "
        f"{', '.join(each.name for each in experiments)}.\n"
        f"`cifarpipe slurm` shows what became of them; what they print is in {folder}.\n"
        f"Finished ones are in `dvc exp show` and `cifarpipe sweep`."
    )


def show_jobs() -> bool:
    """Print the state of every experiment that was submitted here; return whether none failed.

    Raises:
        UserError: Nothing was submitted.
    """
    folders = sorted(JOBS.glob(f"*/{JOB}"), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise UserError("No experiment was submitted here: give --settings FILE or --queue.")
    fine = True
    for file in folders:
        job, plan = file.read_text(encoding="utf-8"), read_plan(file.parent)
        active = active_jobs(job)
        for index, experiment in enumerate(plan.experiments):
            state = state_of(file.parent, index, active)
            fine = fine and not state.startswith(("failed", "killed"))
            print(f"{job}_{index}  {experiment.name}: {state}")
    return fine


def state_of(folder: Path, index: int, active: Mapping[int, str]) -> str:
    """Return in words what became of a job.

    Args:
        folder: Of its array.
        index: Its place in the array.
        active: The states of those that Slurm still knows, by their place.
    """
    code = folder / f"{index}.code"
    if code.is_file():
        number = code.read_text(encoding="utf-8")
        return "finished" if number == "0" else f"failed, see {folder / f'{index}.log'}"
    return active.get(index, f"killed, see {folder / f'{index}.log'}")


def active_jobs(job: str) -> dict[int, str]:
    """Return the states of the jobs of an array that wait or run, by their place in it."""
    done = subprocess.run(
        ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%K %T"],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split() for line in done.stdout.splitlines()]  # none if Slurm forgot the array
    return {int(index): state.lower() for index, state in rows if state != "COMPLETING"}


def read_plan(folder: Path) -> Plan:
    """Return the plan of an array."""
    content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    experiments = [Experiment(**each) for each in content.pop("experiments")]
    return Plan(**content, experiments=experiments)


def task_command(folder: Path) -> str:
    """Return the shell command of a job."""
    python = shlex.quote(sys.executable)
    return f'exec {python} -m cifarpipe.cli.slurm {shlex.quote(str(folder))} "$SLURM_ARRAY_TASK_ID"'


def read_settings(file: Path, name: str) -> list[Experiment]:
    """Return the experiments of a file: a line of `-S KEY=VALUE …` for each.

    Empty lines and those that begin with `#` are left out.

    Args:
        file: The file.
        name: Begins the names of the experiments.

    Raises:
        UserError: A line has something else, there is none, or files are not committed.
    """
    if changed := output("git", "status", "--porcelain", "--untracked-files=no"):
        raise UserError(
            f"The nodes would not see changes that are not committed:\n{changed}\n"
            f"Commit them, or undo them with `git checkout .`."
        )
    revision = output("git", "rev-parse", "HEAD")
    found: list[Experiment] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        overrides = words[1::2]
        if len(words) % 2 or any(option != "-S" for option in words[::2]):
            raise UserError(
                f"{file}, line {number}: {line!r}; allowed: -S KEY=VALUE, any number of times."
            )
        found.append(Experiment(f"{name}-{len(found) + 1}", revision, overrides, None))
    if not found:
        raise UserError(f"{file} has no line with settings, such as: -S lr=0.003 -S seed=1")
    return found


def queued_experiments() -> list[Experiment]:
    """Return the experiments of DVC's queue that no worker has started.

    Raises:
        UserError: There is none, or one was queued with changes of other files than params.yaml.
    """
    from dvc.repo import Repo

    found = []
    with Repo() as repo:
        for entry in repo.experiments.celery_queue.iter_queued():
            base, stash = entry.baseline_rev, entry.stash_rev
            name = entry.name or stash[:7]
            changed = output("git", "diff", "--name-only", base, stash, "--", ":!.dvc/tmp")
            if others := sorted(set(changed.splitlines()) - {"params.yaml"}):
                raise UserError(
                    f"{name} was queued with changes of {', '.join(others)}, which the nodes would "
                    f"not see.\nCommit them, and queue it again."
                )
            params = output("git", "show", f"{stash}:params.yaml")
            found.append(Experiment(name, base, [], params + "\n"))
    if not found:
        raise UserError("The queue has no experiment: `dvc exp run --queue -S …` adds one.")
    return found


def refuse_known(names: Sequence[str]) -> None:
    """Check that no experiment has one of these names; else raise `UserError`."""
    there = output("git", "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    known = {ref.rsplit("/", 1)[-1] for ref in there}
    if taken := sorted(known & set(names)):
        raise UserError(
            f"There are experiments named {', '.join(taken)} already.\n"
            f"Give another --name, or remove them with `dvc exp remove`."
        )


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
        clone = Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", plan.origin, clone], check=True)
        local = Path(plan.origin) / LOCAL
        if local.is_file():
            shutil.copy(local, clone / LOCAL)
        for command in commands(plan, experiment):
            if command[0] == "dvc" and experiment.params is not None:
                (clone / "params.yaml").write_text(experiment.params, encoding="utf-8")
            print("$", shlex.join(command), flush=True)
            code = subprocess.run(command, cwd=clone, env=environment(plan), check=False).returncode
            if code:
                return code
    return 0


def commands(plan: Plan, experiment: Experiment) -> list[list[str]]:
    """Return what a job runs in its clone, in order."""
    name, email = plan.author
    overrides = [word for value in experiment.overrides for word in ("-S", value)]
    run = ["dvc", "exp", "run", "--name", experiment.name, *overrides]
    push = ["dvc", "exp", "push", "origin", experiment.name]
    found = [
        ["git", "checkout", "--quiet", "--detach", experiment.revision],
        ["git", "config", "user.name", name],
        ["git", "config", "user.email", email],
    ]
    if plan.cache is None:
        return [*found, [*run, "--pull"], push]
    return [*found, ["dvc", "cache", "dir", "--local", plan.cache], run, [*push, "--no-cache"]]


def environment(plan: Plan) -> dict[str, str]:
    """Return the environment of a job's commands."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    threads = {"OMP_NUM_THREADS": cores} if cores else {}
    # Slurm gives each job GPUs of its own: nothing is to wait.
    return {**threads, **os.environ, "PATH": path, "CIFARPIPE_DATA": plan.raw, SHARE_GPUS: "1"}


def output(*command: str) -> str:
    """Return what a command prints; raise `UserError` with its message if it fails."""
    program = [sys.executable, "-m", "dvc"] if command[0] == "dvc" else [command[0]]
    done = subprocess.run([*program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"`{shlex.join(command)}` fails: {reason}")
    return done.stdout.strip()


def main(folder: Path, index: int) -> int:
    """Run one experiment, and leave its exit code in the array's folder."""
    code_file = folder / f"{index}.code"
    code_file.unlink(missing_ok=True)
    code = run_task(folder, index)
    write_text(code_file, str(code))
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
