"""Parameters for tests, those of tests/support/params.yaml, and changed copies of them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).with_name("params.yaml")
TEXT = EXAMPLE.read_text(encoding="utf-8")
CONTENT: dict[str, Any] = yaml.safe_load(TEXT)
DELETED = object()


def changed(content: dict[str, Any] = CONTENT, /, **changes: Any) -> dict[str, Any]:
    """Return a copy of the content with some keys set; `__` stands for a dot."""
    content = copy.deepcopy(content)
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        if value is DELETED:
            del section[key]
        else:
            section[key] = value
    return content


# All augmentations, with values inside their bounds.
AUGMENT: dict[str, Any] = {
    "crop": 4,
    "resized_crop": {"scale": [0.5, 1.0], "ratio": [0.75, 1.33]},
    "flip": "random",
    "randaugment": {"n": 2, "m": 9, "omit": ["identity"]},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "rotate": 5.0,
    "erasing": {"probability": 0.25, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]},
    "cutout": 8,
    "mixup": {"probability": 0.5, "alpha": 0.8},
    "cutmix": {"probability": 0.5, "alpha": 1.0},
}
# The parameters with every optional key; `plateau` is in one model already.
FULL = changed(
    models__vit__dropout=0.1,
    models__vit__init="mimetic",
    models__vit__optimizer__keep_norm=True,
    models__convmixer__init="covariance",
    models__resnet18_ln__zero_init_residual=True,
    models__vit__ema=0.999,
    models__vit__augment=AUGMENT,
    report__labels={"contested": "c.json", "duplicates": "d.csv", "human": "h.npy"},
)


def dump(content: dict[Any, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False)


def refused_text(file: Path, text: str) -> str:
    """Write a parameter file that must be refused; return the message."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    return str(refused.value)


def replaced(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)
