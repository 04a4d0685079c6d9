"""Reading of `params.yaml`: the whole file is validated, and all its faults are named at once."""

import math
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import FAULT_SEPARATOR, PARAMS_FILE, Params, disagreements

MOST_BYTES = 1_000_000  # of a file that is read in some seconds
HOW_TO_UNDO = (
    "Mend the file, or take back all changes to it with `git checkout params.yaml` "
    "(a refused `dvc exp run -S …` leaves its value in the file); "
    "`dvc repro` then brings back what DVC cleared away for the run."
)


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and validate the whole parameter file.

    Raises:
        UserError: The file can't be read, or holds any fault; all of them are named.
    """
    raw = _read_yaml(Path(path))
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in _explain(fault)]
        if isinstance(raw, dict) and any(fault["loc"] for fault in error.errors()):
            faults += disagreements(*(_valid_section(raw, name) for name in _AGREEING))
    lines = "\n".join(f"  - {fault}" for fault in faults)
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise UserError(f"{path} has {count}:\n{lines}\n{HOW_TO_UNDO}")


_AGREEING = ("data", "train", "models", "report")  # the arguments of `disagreements`


def _valid_section(raw: dict[Any, Any], name: str) -> Any:
    """Return one section if it is valid by itself, else nothing."""
    try:
        annotation: Any = Params.model_fields[name].annotation
        return TypeAdapter(annotation).validate_python(raw.get(name))
    except ValidationError:
        return None


def _read_yaml(path: Path) -> Any:
    """Read what DVC reads, by the same package: YAML 1.2, where 1e-3 is a number and `no` is text.

    A key that stands twice is refused, and so are aliases: `-S` changes an anchored value in one
    place and silently keeps the old one in the other.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist in {Path.cwd().name}/. Run from the project's root folder."
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise UserError(
            f"{path} has {size:,} bytes; allowed are {MOST_BYTES:,}, enough for some 800 models.\n"
            f"{HOW_TO_UNDO}"
        )
    reader = YAML(typ="safe", pure=True)
    try:
        text = path.read_text(encoding="utf-8")
        for event in reader.parse(text) if "&" in text else ():  # without an anchor, no alias
            if isinstance(event, AliasEvent):
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: *{event.anchor} is an alias; write the value out")
        return reader.load(text)
    except (YAMLError, RecursionError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.partition(" To suppress this check")[0]  # it would send users elsewhere
        raise UserError(f"{path} is not valid YAML: {reason}\n{HOW_TO_UNDO}") from None


def _explain(fault: ErrorDetails) -> list[str]:
    """Say in a line each which key is wrong, what it holds and what is allowed."""
    # Pydantic names the chosen member of a union (`vit`, `adamw`) as if it were a key.
    location = [str(part) for part in fault["loc"]]
    if len(location) > 2 and location[0] == "models":
        del location[2]
        if len(location) > 3 and location[2] == "optimizer":
            del location[3]
    key = ".".join(part for part in location if part != "[key]") or "(the whole file)"
    value, kind = fault["input"], fault["type"]
    message = fault["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return [f"{key} is missing"]
    if kind == "extra_forbidden":
        return [f"{key} is not a known key (misspelt, or not for this section)"]
    if kind == "value_error":
        return [f"{key}: {message}"] if location else message.split(FAULT_SEPARATOR)
    if kind == "string_pattern_mismatch":
        message = "a model's name is lower-case letters, digits, - and _, a letter first"
    elif kind == "union_tag_not_found":
        message = f"{_tag(fault)} is missing"
    elif kind == "union_tag_invalid":
        value = value.get(_tag(fault)) if isinstance(value, dict) else value
        key = f"{key}.{_tag(fault)}"
        message = f"allowed: {fault['ctx']['expected_tags']}"
    elif kind in {"model_type", "model_attributes_type", "dict_type"}:
        message = "a section of `key: value` lines is wanted here"
    elif isinstance(value, str) and kind in {"float_type", "int_type"}:
        message += " (a quoted number is text: take the quotes away)" if _is_number(value) else ""
    return [f"{key} is {_shown(value)}: {message}"]


def _tag(fault: ErrorDetails) -> str:
    return str(fault["ctx"]["discriminator"]).strip("'")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(value: Any) -> str:
    try:
        text = "null" if value is None else repr(value)
    except ValueError:  # Python refuses to write out whole numbers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "…"
