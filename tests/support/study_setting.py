"""A small study in a repository of its own, and commands run in it as a person would."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MODELS = ("vit", "convmixer")
SMALL = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 2},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 2},
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person with the environment activated would."""
    # Into files: what it leaves running in the background would hold a pipe open.
    with TemporaryFile("w+") as out, TemporaryFile("w+") as faults:
        done = subprocess.run(command, cwd=folder, stdout=out, stderr=faults, env=environment())
        out.seek(0)
        faults.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), faults.read())


def environment() -> dict[str, str]:
    """Return the variables of a shell in which the environment is activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def succeed(folder: Path, *command: str) -> str:
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def small_params() -> dict[str, Any]:
    """Return the demo's parameters, cut to what takes seconds."""
    params = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"train_size": 300, "val_size": 60, "test_size": 200}
    params["models"] = {name: params["models"][name] | SMALL[name] for name in MODELS}
    params["report"]["baselines"] = {}
    params["misclassified"]["count"] = 12
    params["gradcam"]["removal_images"] = 6
    return params


def make_study(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """Make a repository, reproduced and committed; by default with two small models."""
    params = small_params() if params is None else params
    folder.mkdir()
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    succeed(folder, sys.executable, "-m", "cifarpipe.cli.plots_page")
    dag = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for plot in dag["plots"]:
        for options in plot.values():
            options["y"] = {
                path: column
                for path, column in options["y"].items()
                if Path(path).parts[2] in params["models"]
            }
    (folder / "dvc.yaml").write_text(yaml.safe_dump(dag, sort_keys=False))
    text = yaml.safe_dump(params, sort_keys=False)
    (folder / "params.yaml").write_text(text)
    succeed(folder, "git", "init", "-q", "-b", "main")
    succeed(folder, "git", "config", "user.email", "nobody@example.invalid")
    succeed(folder, "git", "config", "user.name", "nobody")
    succeed(folder, "dvc", "repro")
    succeed(folder, "git", "add", "-A")
    succeed(folder, "git", "commit", "-qm", "A study")
    return folder


def link_environment(folder: Path) -> None:
    """Let make find our environment; .gitignore names a folder, not a link."""
    (folder / ".venv").symlink_to(ROOT / ".venv")
    with (folder / ".git/info/exclude").open("a") as excluded:
        excluded.write(".venv\n")


def stages_that_ran(said: str) -> set[str]:
    """Return the stages that DVC ran, of what it said."""
    lines = said.splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


def experiments(folder: Path) -> dict[str, str]:
    """Return the commit of each experiment, by its name."""
    lines = succeed(folder, "git", "for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    rows = [line.split(" refs/exps/") for line in lines.splitlines()]
    return {ref.split("/")[2]: commit for commit, ref in rows if ref.count("/") == 2}


def queue(folder: Path) -> dict[str, str]:
    """Return the state of each task by its name."""
    table, *_ = succeed(folder, "dvc", "queue", "status").split("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[1]: row[-1] for row in rows}  # between them, a time or a date


def wait_for_queue(folder: Path, seconds: float = 900) -> dict[str, str]:
    """Wait until every task has ended."""
    end = time.monotonic() + seconds
    while {"Queued", "Running"} & set((states := queue(folder)).values()):
        assert time.monotonic() < end, states
        time.sleep(2)
    return states
