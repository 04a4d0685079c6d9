"""Outputs that are either complete or absent: written to a temporary name, then renamed."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it replaces `path`.

    Works for a file or a folder. If the block raises, the temporary file is removed and `path`
    stays as it was. Temporary files of killed processes are removed, too.

    Raises:
        UserError: The path can't be written: no space, no permission.
    """
    path = Path(path)
    # The suffix stays last: writers such as matplotlib choose the format by it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in path.parent.glob(f".{glob.escape(path.stem)}.*.partial{path.suffix}"):
            _remove(left_over)
        yield partial
        if partial.is_dir():
            _remove(path)  # a folder can't be renamed over a folder that is not empty
        partial.replace(path)
    except FileNotFoundError:
        raise  # the block wrote nothing
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            _remove(partial)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the message about an output that can't be written: no space, no permission."""
    return UserError(
        f"{path} can't be written: {error.strerror or error}.\n"
        f"Free some space or fix its permissions, then run the same command again."
    )


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with its own line ends."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON; NaN and infinity, which JSON does not have, raise `ValueError`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write `table` without its row labels, with Unix line ends."""
    write_text(path, table.to_csv(index=False, float_format=float_format, lineterminator="\n"))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_digest(path: Path) -> str:
    """Return the start of a file's SHA-256, as a text that tables show: `sha256:` and 16 digits."""
    return f"sha256:{file_digest(path)[:16]}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
