"""How every command runs: of a stage, and `cifarpipe` itself."""

import sys
from collections.abc import Callable

import typer

from cifarpipe.config.errors import UserError

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
    """Run an app on the command line's arguments.

    What a user or the machine is at fault for is printed, without a traceback, and exits with 2.
    """
    try:
        app()
    except UserError as error:
        fault = str(error)
    except OSError as error:  # a file that is not there, not to be read …
        fault = (
            f"{error.filename or 'a file'}: {error.strerror or error}.\n"
            f"If an earlier stage writes it, `dvc repro` runs that first."
        )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fault = (
            "there is not enough memory on this device.\nSmaller batches need less of it: "
            "`batch_size` of the model, of `evaluate` or of `gradcam` in params.yaml; or train "
            "on more GPUs together: `train.devices`."
        )
    else:
        return
    print(f"error: {fault}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error tells of too little memory, of the machine or of a GPU."""
    # By name, since torch need not be loaded; on a CPU it raises no error of its own kind.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)
