"""Digests of a model's artifacts in its reports: they show whether both are of the same run.

A table, not JSON, since DVC lists it as a plot: it does not cache runs of stages that have other
outputs outside its cache.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pandas as pd

from cifarpipe.config.errors import UserError
from cifarpipe.results.damage import naming_damaged
from cifarpipe.store.outputs import short_digest, write_csv
from cifarpipe.store.paths import artifact, model_report


def write_digests(model: str, report: str, *files: str, **facts: str) -> None:
    """Write a report on a model's artifacts: columns `name` and `value`, a row for each file.

    Args:
        model: Name of the model.
        report: CSV file in its folder of `reports/`.
        *files: Artifacts whose digests are written.
        **facts: Further rows.
    """
    rows = facts | {file: short_digest(artifact(model, file)) for file in files}
    write_csv(model_report(model, report), pd.DataFrame(rows.items(), columns=["name", "value"]))


def read_digests(path: Path | TextIO) -> dict[str, str]:
    """Return the rows of a report, by name; `ValueError` if it is damaged."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table) != ["name", "value"]:
        raise ValueError(f"its columns are {', '.join(map(str, table))}, not name, value")
    return dict(zip(table.name, table.value, strict=True))


def require_digests(
    model: str, report: str, *files: str, facts: Sequence[str] = ()
) -> dict[str, str]:
    """Check that artifacts are those that a report describes, and return its rows.

    Args:
        model: Name of the model.
        report: CSV file in its folder of `reports/`, as `write_digests` wrote it.
        *files: The artifacts.
        facts: Further rows that it must have.

    Raises:
        UserError: The report is damaged, or an artifact is not the one that it describes.
    """
    path = model_report(model, report)
    with naming_damaged(path):
        rows = read_digests(path)
        if absent := [name for name in (*facts, *files) if name not in rows]:
            raise ValueError(f"it has no row {absent[0]!r}")
    for file in files:
        if short_digest(artifact(model, file)) != rows[file]:
            raise UserError(
                f"{artifact(model, file)} is not the file that {path} describes: they are of "
                f"different runs.\nRun `dvc checkout`, or `dvc repro`."
            )
    return rows
