"""How every command runs: of a stage, and `cifarpipe` itself."""

import sys
from collections.abc import Callable

import typer

from cifarpipe.errors import UserError

USER_ERROR = 2  # exit code, as of a command line that can't be parsed


def new_app() -> typer.Typer:
    """Return an app without commands; errors keep Python's plain traceback."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run(main: Callable[..., None]) -> None:
    """Run `main`, a stage, on the command line's arguments."""
    app = new_app()
    app.command()(main)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an app on the command line's arguments; a `UserError` is printed and exits with 2."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
