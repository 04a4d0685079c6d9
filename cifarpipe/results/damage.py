"""Damaged files: one message, which says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifarpipe.config.errors import UserError


@contextmanager
def naming_damaged(
    path: Path, errors: tuple[type[Exception], ...] = (ValueError,)
) -> Iterator[None]:
    """Turn errors about a file's content into one that names the file.

    Args:
        path: The file.
        errors: What reading a damaged one raises.

    Raises:
        UserError: The file is damaged.
    """
    try:
        yield
    except errors as error:
        raise UserError(f"{path} is damaged ({error}).\nDelete it and run `dvc repro`.") from None
