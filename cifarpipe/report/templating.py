"""Texts from jinja2 templates: what is put in is escaped, a name that is missing is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, *, keep_trailing_newline: bool = False) -> Environment:
    """Return what renders the templates of a folder; it has the filter `cell`.

    Args:
        folder: Holds them.
        keep_trailing_newline: A template's last line end is the text's too.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,  # HTML means something in Markdown too
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.filters["cell"] = cell
    return environment


def cell(value: Any) -> str:
    """Return a value as text that stays within its cell of a Markdown table."""
    text = "–" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").replace("`", "\\`").split())
