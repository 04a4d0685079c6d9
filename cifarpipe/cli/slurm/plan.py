"""The plan of a job array, and its file."""

import json
import shlex
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from cifarpipe.cli.dvc_command import dvc_command
from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import write_json

JOBS = Path(".dvc/tmp/slurm")  # has a folder for each array
PLAN, JOB = "plan.json", "job"  # in it; each job leaves its output and its exit code, too
LOCAL = Path(".dvc/config.local")


@dataclass(frozen=True)
class PlannedExperiment:
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
    local_config: str
    """Content of .dvc/config.local."""
    remotes: dict[str, str]
    """Paths of remotes that are folders, by name."""
    raw: str
    """The raw-data folder."""
    author: list[str]
    """Name and e-mail address for git."""
    experiments: list[PlannedExperiment]


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of an array into its folder."""
    write_json(folder / PLAN, asdict(plan))


def read_plan(folder: Path) -> Plan:
    """Return the plan of an array.

    Raises:
        UserError: The file is missing or damaged.
    """
    file = folder / PLAN
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        experiments = [PlannedExperiment(**each) for each in content.pop("experiments")]
        return Plan(**content, experiments=experiments)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}).\nDelete the folder {folder}.") from None


def output(*command: str) -> str:
    """Return what a command prints; raise `UserError` with its message if it fails."""
    program, *arguments = command
    whole = dvc_command(*arguments) if program == "dvc" else command
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise UserError(f"`{shlex.join(command)}` fails: {reason}")
    return done.stdout.strip()
