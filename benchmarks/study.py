"""Small copies of the pipeline, for measurements that run DVC."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cifarpipe.cli.dvc_command import environment as activated

ROOT = Path(__file__).parents[1]
FOLDERS = ("cifarpipe", "stages", "data/baselines", ".dvc/plots")
FILES = (".dvcignore", ".dvc/config", ".dvc/plots_page.html", "dvc.yaml", "data/dvc.yaml")


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a shell in which the virtual environment is active.

    Args:
        **variables: Further ones, such as `OMP_NUM_THREADS`.
    """
    return {**activated(), "DVC_NO_ANALYTICS": "1", **variables}


def copy_pipeline(folder: Path) -> None:
    """Copy the pipeline without parameters; delete `folder` first if it exists."""
    shutil.rmtree(folder, ignore_errors=True)
    refresh_pipeline(folder)


def refresh_pipeline(folder: Path) -> None:
    """Copy the pipeline without parameters; data and results in `folder` stay."""
    without_caches = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=without_caches)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def copy_study(folder: Path, changes: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    """Copy the pipeline with the demo's parameters.

    Args:
        folder: Deleted first if it exists.
        changes: Values to set, by section: `{"data": {"train_size": 500}}`.
        models: The demo's models to keep; for each, the keys to set.
    """
    copy_pipeline(folder)
    write_params(folder, ROOT / "params.demo.yaml", changes, models)


def write_params(
    folder: Path,
    source: Path,
    changes: dict[str, Any],
    models: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write a study's params.yaml.

    Args:
        folder: Of the study.
        source: A file of parameters.
        changes: Values to set in it, by section.
        models: Its models to keep; for each, the keys to set. None keeps all as they are.
    """
    yaml = YAML()
    params = yaml.load(source.read_text(encoding="utf-8"))
    for section, values in changes.items():
        params[section].update(values)
    if models is not None:
        kept = {name: {**params["models"][name], **new} for name, new in models.items()}
        params["models"] = kept
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def resume_files(folder: Path) -> list[Path]:
    """Return the files that killed trainings left: `.resume/MODEL/RUN/FILE`."""
    return sorted(folder.glob(".resume/*/*/*"))


def run(folder: Path, *command: str, **variables: str) -> str:
    """Run a command in `folder` and return its output; exit with that if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr
