"""The option `--out`, which names the file that a command writes."""

import tempfile
from pathlib import Path

from cifarpipe.config.errors import UserError


def check_output(path: Path, suffix: str) -> None:
    """Check, before the work that leads to it, that a file named by `--out` can be written.

    Raises:
        UserError: Its name does not end in `suffix`, it is a folder, or its folder can't be used.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder.\nName another file with --out.")
        home = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise UserError(
            f"{path} can't be written: {error.strerror or error}.\n"
            f"Name another file with --out, or fix the permissions of its folder."
        ) from error
    if path.suffix.lower() != suffix:
        raise UserError(f"--out is {path}; allowed: the name of a file that ends in {suffix}.")
