"""Read `params.yaml`: validate the whole file and report all its errors at once."""

import math
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import AGREEING, ERROR_SEPARATOR, PARAMS_FILE, Params, disagreements
from cifarpipe.config.sections import Section

MOST_BYTES = 1_000_000  # read within some seconds


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and validate the whole parameter file.

    Raises:
        UserError: The file can't be read, or has errors; all of them are listed.
    """
    raw = _read_yaml(Path(path))
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        errors = [line for details in error.errors() for line in _explain(details)]
        if isinstance(raw, dict) and any(details["loc"] for details in error.errors()):
            errors += disagreements(**{name: _valid_section(raw, name) for name in AGREEING})
    lines = "\n".join(f"  - {line}" for line in errors)
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise UserError(f"{path} has {count}:\n{lines}\n{how_to_undo(path)}")


def how_to_undo(path: str | Path) -> str:
    """Return what to do about a file that is refused."""
    return (
        f"Fix the file. `git diff {path}` shows what was changed, and `git checkout {path}` undoes "
        f"all of it (a refused `dvc exp run -S …` leaves its value in the file)."
    )


def _valid_section(raw: dict[Any, Any], name: str) -> Any:
    """Return one section if it is valid by itself, else None."""
    try:
        annotation: Any = Params.model_fields[name].annotation
        return TypeAdapter(annotation).validate_python(raw.get(name))
    except ValidationError:
        return None


def _read_yaml(path: Path) -> Any:
    """Read the file as DVC does, with the same package: YAML 1.2, so that 1e-3 is a number.

    Duplicate keys are refused, and so are aliases: `-S` changes an anchored value in one place and
    silently keeps the old one in the other.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist in {Path.cwd().name}/. Run from the project's root folder."
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise UserError(
            f"{path} has {size:,} bytes; allowed: {MOST_BYTES:,}, enough for some 1,500 models.\n"
            f"{how_to_undo(path)}"
        )
    reader = YAML(typ="safe", pure=True)
    try:
        text = path.read_text(encoding="utf-8")
        for event in reader.parse(text) if "&" in text else ():  # without an anchor, no alias
            if isinstance(event, AliasEvent):
                line = event.start_mark.line + 1
                raise ValueError(
                    f"line {line}: *{event.anchor} is an alias; write the value itself"
                )
        return reader.load(text)
    except (YAMLError, RecursionError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.partition(" To suppress this check")[0]  # advice for ruamel's own users
        raise UserError(f"{path} is not valid YAML: {reason}\n{how_to_undo(path)}") from None


def _explain(error: ErrorDetails) -> list[str]:
    """Return one line per error: which key, its value, and what is allowed."""
    # Pydantic lists the chosen member of a union (`vit`, `adamw`) as if it were a key.
    location = [str(part) for part in error["loc"]]
    if len(location) > 2 and location[0] == "models":
        del location[2]
        if len(location) > 3 and location[2] == "optimizer":
            del location[3]
    key = ".".join(part for part in location if part != "[key]") or "(the whole file)"
    value, kind = error["input"], error["type"]
    message = error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return [f"{key} is missing"]
    if kind == "extra_forbidden":
        return [f"{key} is not a known key; known: {', '.join(_section_keys(error['loc'][:-1]))}"]
    if kind == "value_error":
        return [f"{key}: {message}"] if location else message.split(ERROR_SEPARATOR)
    if kind == "string_pattern_mismatch" or (kind == "string_too_long" and "[key]" in error["loc"]):
        message = "a model's name is at most 60 lowercase letters, digits, - and _, a letter first"
    elif kind == "union_tag_not_found":
        message = f"{_tag(error)} is missing"
    elif kind == "union_tag_invalid":
        value = value.get(_tag(error)) if isinstance(value, dict) else value
        key = f"{key}.{_tag(error)}"
        message = f"allowed: {error['ctx']['expected_tags']}"
    elif kind == "too_short":
        message = "allowed: at least one entry"
    elif kind == "dict_type":
        message = "expected a section of `key: value` lines"
    elif kind in {"model_type", "model_attributes_type"}:
        message = f"expected a section; its keys: {_keys_of_one(error['loc'])}"
    elif isinstance(value, str) and kind in {"float_type", "int_type"}:
        message += " (a quoted number is text: remove the quotes)" if _is_number(value) else ""
    return [f"{key} is {_shown(value)}: {message}"]


def _keys_of_one(location: tuple[int | str, ...]) -> str:
    """Return the keys of the section at `location`; if it may be of several kinds, only the tag."""
    kinds = _kinds_at(location)
    if len(kinds) == 1:
        return ", ".join(kinds[0].model_fields)
    tag = "arch" if "arch" in kinds[0].model_fields else "name"
    return f"{tag} ({', '.join(tag for kind in kinds for tag in _tags(kind))}) and those it needs"


def _section_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section at `location`, as pydantic gives it."""
    return [key for kind in _kinds_at(location) for key in kind.model_fields]


def _kinds_at(location: tuple[int | str, ...]) -> list[type[Section]]:
    """Return what the section at `location` may be."""
    kinds: list[type[Section]] = [Params]
    for depth, part in enumerate(location):
        if depth == 1 and location[0] == "models":
            continue  # a model's name, which may also be that of a key or of a tag
        fields = [kind.model_fields[part] for kind in kinds if part in kind.model_fields]
        if fields:
            kinds = [kind for field in fields for kind in _sections_in(field.annotation)]
        else:
            kinds = [kind for kind in kinds if part in _tags(kind)]
    return kinds


def _sections_in(annotation: Any) -> list[type[Section]]:
    """Return the section classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _sections_in(part)]


def _tags(kind: type[Section]) -> tuple[Any, ...]:
    fields = kind.model_fields
    return tuple(
        tag for key in ("arch", "name") if key in fields for tag in get_args(fields[key].annotation)
    )


def _tag(error: ErrorDetails) -> str:
    return str(error["ctx"]["discriminator"]).strip("'")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(value: Any) -> str:
    try:
        text = "null" if value is None else repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "…"
