"""dvc.yaml and params.yaml as they are, and a stage's definition with its templates filled in."""

from pathlib import Path
from typing import Any

import yaml

from cifarpipe.config.reader import load_params

ROOT = Path(__file__).parents[2]
DAG = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
CHECK = yaml.safe_load((ROOT / "data/dvc.yaml").read_text(encoding="utf-8"))["stages"]["check"]
PARAMS = load_params(ROOT / "params.yaml")
MODELS = list(PARAMS.models)
SINGLE = ("prepare", "report")
PER_MODEL = ("train", "evaluate", "misclassified", "gradcam", "figures")


def definition(stage: str, model: str | None) -> dict[str, Any]:
    """Return a stage's definition with its templates filled in."""
    raw = DAG["stages"][stage]
    text = yaml.safe_dump(raw.get("do", raw))
    if model:
        text = text.replace("${key}", model).replace("${item.arch}", PARAMS.models[model].arch)
    return yaml.safe_load(text)
