"""A small copy of the pipeline in a folder of its own, for measurements that run DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """Return what a shell with the environment activated has, and one thread for each process."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **more}


def copy_pipeline(folder: Path) -> None:
    """Copy all but the parameters into a folder, made anew, that git does not look at."""
    shutil.rmtree(folder, ignore_errors=True)
    refresh_pipeline(folder)


def refresh_pipeline(folder: Path) -> None:
    """Copy all but the parameters into a folder whose data and runs stay."""
    without_caches = shutil.ignore_patterns("__pycache__")
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=without_caches)
    for name in (".dvcignore", ".dvc/config", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def copy_study(folder: Path, changes: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    """Copy the pipeline with the demo's parameters.

    Args:
        folder: Made anew.
        changes: Values of whole sections, by key: `{"data": {"train_size": 500}}`.
        models: Which of the demo's models, each with the keys to change.
    """
    copy_pipeline(folder)
    yaml = YAML()
    params = yaml.load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        params[section].update(values)
    params["report"]["baselines"] = {}
    params["models"] = {name: {**params["models"][name], **new} for name, new in models.items()}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def run(folder: Path, *command: str, **variables: str) -> None:
    """Run a command in `folder`; what it prints is shown if it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
