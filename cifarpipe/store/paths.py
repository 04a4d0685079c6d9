"""Paths of files that stages write; dvc.yaml repeats those that DVC tracks."""

import os
from collections.abc import Container
from pathlib import Path

from cifarpipe.config.errors import UserError

RAW_ROOT_VARIABLE = "CIFARPIPE_DATA"
ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")
MODEL_REPORTS = REPORTS / "models"
LOGS = Path("logs")
RESUME = Path(".resume")
DATASET_CARD = REPORTS / "dataset.json"
SOURCE_FILE = Path("data/source.json")  # fingerprint of the raw images, in git
# What was last seen of them, in neither git nor DVC: in short, and file by file.
SOURCE_SEEN = RESUME / "source.json"
SOURCE_TABLE = RESUME / "source_files.json"


def artifact(model: str, name: str) -> Path:
    """Return the path of a file that DVC stores: large, or only for later stages."""
    return ARTIFACTS / model / name


def model_report(model: str, name: str) -> Path:
    """Return the path of a file that git stores: small, and for people."""
    return MODEL_REPORTS / model / name


def left_over_folders(models: Container[str]) -> list[Path]:
    """Return the folders of models that are no longer in params.yaml.

    Args:
        models: Names of the models that are.
    """
    return [
        folder
        for parent in (ARTIFACTS, MODEL_REPORTS, RESUME)
        if parent.is_dir()
        for folder in sorted(parent.iterdir())
        if folder.is_dir() and folder.name not in models
    ]


def left_over_logs(models: Container[str]) -> list[Path]:
    """Return the logs of models that are no longer in params.yaml."""
    # Hidden ones are being written.
    return [path for path in sorted(LOGS.glob("[!.]*.csv")) if path.stem not in models]


def training_log(model: str) -> Path:
    """Return the path of the last training's history with times, on which nothing depends."""
    return LOGS / f"{model}.csv"


def resume_folder(model: str) -> Path:
    """Return the folder of the resume states of a model; neither git nor DVC stores it."""
    return RESUME / model


def raw_root() -> Path:
    """Return the folder of raw data: `$CIFARPIPE_DATA`, else `data/raw`.

    It lies outside DVC's graph. Temporary workspaces of experiments find it only by the variable.
    """
    return _expanded(os.environ.get(RAW_ROOT_VARIABLE) or "data/raw")


def raw_path(path: str) -> Path:
    """Return a path that is absolute, or relative to the folder of raw data.

    Raises:
        UserError: It begins with `~` or `~user`, and there is no such home folder.
    """
    return raw_root() / _expanded(path)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"{path} can't be used: there is no such home folder.\nGive the whole path."
        ) from None
