"""Render jinja2 templates: inserted text is escaped, and a missing name is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path, *, keep_trailing_newline: bool = False) -> Environment:
    """Return the environment that renders the templates of a folder, with the filter `cell`.

    Args:
        folder: Of the templates.
        keep_trailing_newline: Keep the newline at a template's end.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,  # Markdown may contain HTML, too
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.filters["cell"] = cell
    return environment


def cell(value: Any) -> str:
    """Return a value as text for one cell of a Markdown table."""
    text = "–" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").replace("`", "\\`").split())
