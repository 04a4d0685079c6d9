"""How every stage runs as a command."""

import sys
from collections.abc import Callable

import typer

from cifarpipe.errors import UserError

USER_ERROR = 2  # exit code, as of a command line that can't be parsed


def run(main: Callable[..., None]) -> None:
    """Run `main` on the command line's arguments; a `UserError` is printed and exits with 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
