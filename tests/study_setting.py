"""A small study in a repository of its own, and commands run in it as a person would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MODELS = ("vit", "convmixer")
SMALL = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 2},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 2},
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person with the environment activated would."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def succeed(folder: Path, *command: str) -> str:
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_study(folder: Path) -> Path:
    """Make a repository with two small models, reproduced and committed."""
    folder.mkdir()
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    succeed(folder, sys.executable, "-m", "cifarpipe.plots_page")
    dag = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for plot in dag["plots"]:
        for options in plot.values():
            options["y"] = {
                path: column
                for path, column in options["y"].items()
                if Path(path).parts[2] in SMALL
            }
    (folder / "dvc.yaml").write_text(yaml.safe_dump(dag, sort_keys=False))
    params = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"train_size": 300, "val_size": 60, "test_size": 200}
    params["models"] = {name: params["models"][name] | SMALL[name] for name in MODELS}
    params["report"]["baselines"] = {}
    params["misclassified"]["count"] = 12
    params["gradcam"]["removal_images"] = 6
    text = yaml.safe_dump(params, sort_keys=False)
    (folder / "params.yaml").write_text(text)
    succeed(folder, "git", "init", "-q", "-b", "main")
    succeed(folder, "git", "config", "user.email", "nobody@example.invalid")
    succeed(folder, "git", "config", "user.name", "nobody")
    succeed(folder, "dvc", "repro")
    succeed(folder, "git", "add", "-A")
    succeed(folder, "git", "commit", "-qm", "A study")
    return folder
