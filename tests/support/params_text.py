"""The project's own parameters, to be changed in tests."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
CONTENT: dict[str, Any] = yaml.safe_load(TEXT)
DELETED = object()


def changed(**changes: Any) -> dict[str, Any]:
    """Return the default content with some keys set; `__` stands for a dot."""
    content = copy.deepcopy(CONTENT)
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


def dump(content: dict[Any, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False)


def refused_text(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    return str(refused.value)


def replaced(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)
