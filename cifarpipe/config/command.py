"""Run a command, a stage's or `cifarpipe` itself, and turn user errors into exit code 2."""

import os
import sys
from collections.abc import Callable

import typer

from cifarpipe.config.errors import UserError

STAGE_FOLDERS = ("data", "artifacts", "reports")  # where stages write
USER_ERROR = 2  # exit code; also that of an invalid command line


def new_app(*, completion: bool = False) -> typer.Typer:
    """Return an app without commands; unexpected errors keep Python's plain traceback.

    Args:
        completion: Whether it has options that make the shell complete its command line.
    """
    return typer.Typer(add_completion=completion, pretty_exceptions_enable=False)


def run(main: Callable[..., None]) -> None:
    """Run `main`, a stage, with the arguments of the command line."""
    app = new_app()
    app.command()(main)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    """Run an app with the arguments of the command line.

    An error of the user or of the machine is printed without a traceback; the exit code is 2.
    """
    try:
        app()
    except UserError as error:
        message = str(error)
    except OSError as error:  # missing file, no permission …
        message = f"{error.filename or 'a file'}: {error.strerror or error}."
        if str(error.filename).partition(os.sep)[0] in STAGE_FOLDERS:
            message += "\nIf an earlier stage writes it, `dvc repro` runs that first."
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        message = (
            "out of memory on this device.\nUse smaller batches (`batch_size` of the model, of "
            "`evaluate` or of `gradcam` in params.yaml) or fewer images (`data`), or train on "
            "several GPUs (`train.devices`)."
        )
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means too little memory, of the machine or of a GPU."""
    # By name, so that torch need not be imported; on a CPU it raises no error class of its own.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)
