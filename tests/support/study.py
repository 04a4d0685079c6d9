"""A small study in a repository of its own, and commands run in it as a user would."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import yaml

from tests.support.preloaded import preloading_path

ROOT = Path(__file__).parents[2]
MODELS = ("vit", "convmixer")
HALF = "lr=0.005"  # of 0.01 in the demo's parameters
OWN_PROCESSES = "OWN_PROCESSES"  # environment variable; set: no command is a fork
PER_MODEL = ("train", "evaluate", "misclassified", "gradcam", "figures")
SMALL = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 2},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 2},
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as in a shell with the environment activated.

    DVC, `cifarpipe` and stages are forks of a process that has imported the large packages (see
    `preloaded`), except in tests with the fixture `own_processes`.
    """
    variables = environment()
    # Coverage measures no forks.
    if not any(name.startswith("COVERAGE_") or name == OWN_PROCESSES for name in os.environ):
        variables["PATH"] = f"{preloading_path()}{os.pathsep}{variables['PATH']}"
    # Into files: a process that it leaves in the background would keep a pipe open.
    with TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
        done = subprocess.run(command, cwd=folder, stdout=out, stderr=errors, env=variables)
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), errors.read())


def environment() -> dict[str, str]:
    """Return the variables of a shell in which the environment is activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def succeed(folder: Path, *command: str) -> str:
    """Run a command that must succeed; return its standard output."""
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def small_params() -> dict[str, Any]:
    """Return the demo's parameters, reduced to train within seconds."""
    params = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"train_size": 300, "val_size": 60, "test_size": 200}
    params["models"] = {name: params["models"][name] | SMALL[name] for name in MODELS}
    params["misclassified"]["count"] = 12
    params["gradcam"]["removal_images"] = 6
    return params


def copy_project(folder: Path, params: dict[str, Any]) -> None:
    """Make a git repository with the project's pipeline and these parameters."""
    folder.mkdir()
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in (
        ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots_page.html",
        "Makefile", "dvc.yaml", "data/dvc.yaml",
    ):  # fmt: skip
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    succeed(folder, "git", "init", "-q", "-b", "main")
    succeed(folder, "git", "config", "user.email", "nobody@example.invalid")
    succeed(folder, "git", "config", "user.name", "nobody")


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    succeed(folder, "git", "add", "-A")
    succeed(folder, "git", "commit", "-qm", message)


def make_study(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """Make a repository with a finished, committed study; by default of two small models."""
    copy_project(folder, small_params() if params is None else params)
    run_study(folder)
    commit(folder, "A study")
    return folder


def run_study(folder: Path) -> None:
    """Run all stages, those of two models at a time."""
    models = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))["models"]
    succeed(folder, "dvc", "repro", "prepare")

    def run_model(name: str) -> None:
        stages = [f"{stage}@{name}" for stage in PER_MODEL]
        succeed(folder, "dvc", "--wait-for-lock", "repro", "--single-item", *stages)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(run_model, models))
    succeed(folder, "dvc", "repro")


def shared_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the study of this test session, which must not be changed: use `copy_of`."""

    def make(folder: Path) -> None:
        make_study(folder)
        link_environment(folder)

    return made_once("study", make, tmp_path_factory)


def shared_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shared study with an experiment `half`, of half the learning rate.

    It must not be changed either.
    """

    def make(folder: Path) -> None:
        copy_of(shared_study(tmp_path_factory), folder)
        replace_in(folder / "params.yaml", "lr: 0.01", HALF.replace("=", ": "))
        run_study(folder)
        succeed(folder, "dvc", "exp", "save", "--name", "half")
        restore(folder)

    return made_once("experiment", make, tmp_path_factory)


def made_once(
    name: str, make: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder of this test session, made by the first process that asks for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / name
        if not (shared / f"{name}.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (shared / f"{name}.done").touch()
    return folder


def restore(study: Path) -> None:
    """Undo all changes of tracked files."""
    succeed(study, "git", "checkout", "-q", ".")
    succeed(study, "dvc", "checkout", "-q")


def copy_of(study: Path, folder: Path) -> Path:
    """Copy a study with its DVC cache; its links then point into the copy's own cache."""
    shutil.copytree(study, folder, symlinks=True)
    cache = str(study / ".dvc/cache")
    for path in folder.rglob("*"):
        if path.is_symlink() and (target := str(path.readlink())).startswith(cache):
            path.unlink()
            path.symlink_to(target.replace(str(study), str(folder), 1))
    return folder


def clone_of(study: Path, folder: Path) -> Path:
    """Clone a study with git alone: without data, models or cache."""
    succeed(folder.parent, "git", "clone", "-q", str(study), str(folder))
    succeed(folder, "git", "config", "user.email", "nobody@example.invalid")
    succeed(folder, "git", "config", "user.name", "nobody")
    link_environment(folder)
    return folder


def link_environment(folder: Path) -> None:
    """Let make find our environment."""
    (folder / ".venv").symlink_to(ROOT / ".venv")


def replace_in(file: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text, which must be there."""
    text = file.read_text(encoding="utf-8")
    assert old in text, (file, old)
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def stages_that_ran(output: str) -> set[str]:
    """Return the stages that DVC ran according to its output, except the one that always runs."""
    lines = output.splitlines()
    found = {line.split("'")[1] for line in lines if line.startswith("Running stage")}
    return found - {"data/dvc.yaml:check"}


def experiments(folder: Path) -> dict[str, str]:
    """Return the commit of each experiment, by its name."""
    lines = succeed(folder, "git", "for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    rows = [line.split(" refs/exps/") for line in lines.splitlines()]
    return {ref.split("/")[2]: commit for commit, ref in rows if ref.count("/") == 2}


def queue(folder: Path) -> dict[str, str]:
    """Return the state of each queued experiment, by its name."""
    table, *_ = succeed(folder, "dvc", "queue", "status").split("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[1]: row[-1] for row in rows}  # between them, a time or a date


def wait_for_queue(folder: Path, seconds: float = 900) -> dict[str, str]:
    """Wait until every queued experiment has finished."""
    end = time.monotonic() + seconds
    while {"Queued", "Running"} & set((states := queue(folder)).values()):
        assert time.monotonic() < end, states
        time.sleep(2)
    return states
