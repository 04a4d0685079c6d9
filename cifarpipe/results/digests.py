"""Digests of a model's artifacts in its reports: they show whether both are of the same run."""

import json
from typing import Any

from cifarpipe.config.errors import UserError
from cifarpipe.store.outputs import short_digest
from cifarpipe.store.paths import artifact, model_report


def digests(model: str, *files: str) -> dict[str, str]:
    """Return the digests of a model's artifacts, by file name."""
    return {file: short_digest(artifact(model, file)) for file in files}


def require_digests(model: str, report: str) -> dict[str, Any]:
    """Check that artifacts are those that a report describes.

    Args:
        model: Name of the model.
        report: JSON file in its folder of `reports/`; `digests` in it has the artifacts' digests.

    Returns:
        The content of the report.

    Raises:
        UserError: The report is damaged, or an artifact is not the one that it describes.
    """
    path = model_report(model, report)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        expected = dict(content["digests"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}).\nDelete it and run `dvc repro`.") from None
    for file, digest in expected.items():
        if short_digest(artifact(model, file)) != digest:
            raise UserError(
                f"{artifact(model, file)} is not the file that {path} describes: they are of "
                f"different runs.\nRun `dvc checkout`, or `dvc repro`."
            )
    return content
