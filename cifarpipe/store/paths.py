"""Where each model's files lie; dvc.yaml names the same places."""

import os
from pathlib import Path

RAW_ROOT_VARIABLE = "CIFARPIPE_DATA"
ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")
MODEL_REPORTS = REPORTS / "models"
DATASET_CARD = REPORTS / "dataset.json"
DATASET_PICTURE = REPORTS / "dataset.png"


def artifact(model: str, name: str) -> Path:
    """Return the path of a file that DVC keeps: large, or of use to later stages alone."""
    return ARTIFACTS / model / name


def model_report(model: str, name: str) -> Path:
    """Return the path of a file that git keeps: small, and for people."""
    return MODEL_REPORTS / model / name


def training_log(model: str) -> Path:
    """Return where the last training leaves its history with times, which nothing depends on."""
    return Path("logs") / f"{model}.csv"


def resume_folder(model: str) -> Path:
    """Return where runs leave their state while they last; neither git nor DVC keeps it."""
    return Path(".resume") / model


def raw_root() -> Path:
    """Return the folder of raw data: `$CIFARPIPE_DATA`, else `data/raw`.

    It lies outside DVC's graph, so that temporary workspaces of experiments find it too.
    """
    return Path(os.environ.get(RAW_ROOT_VARIABLE) or "data/raw").expanduser()
