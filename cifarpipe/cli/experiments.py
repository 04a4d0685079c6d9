"""The experiments that DVC keeps, as rows of a table: what each changed and what came out."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cifarpipe.config.errors import UserError

METRICS = "metrics.json"  # of each model, by the stage `evaluate`


@dataclass(frozen=True)
class Experiment:
    """One run that is finished: an experiment, or what its commit itself holds."""

    name: str
    """As DVC calls it; of a commit its branch."""
    params: Mapping[str, Any]
    """By dotted name."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Of each model."""


def read_experiments(revisions: list[str]) -> list[Experiment]:
    """Return the finished experiments of some commits, and the commits' own results.

    Args:
        revisions: Commits that experiments started from; none: the current one.

    Raises:
        UserError: DVC can't say; with its reason.
    """
    asked = [part for revision in revisions for part in ("--rev", revision)]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json", *asked],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().removeprefix("ERROR: ") or "dvc exp show failed"
        raise UserError(f"DVC can't list experiments: {reason}")
    found = []
    for commit in json.loads(done.stdout):
        if commit["rev"] == "workspace":
            continue
        # What is queued, running or has failed shows the metrics that its commit holds.
        ended = [
            each["revs"][0]
            for each in commit["experiments"] or []
            if (each["executor"] or {}).get("state", "success").lower() == "success"
        ]
        runs = [commit, *ended]
        found += [experiment for run in runs if (experiment := _experiment(run))]
    return found


def _experiment(run: Mapping[str, Any]) -> Experiment | None:
    """Return what a row of DVC's answer tells; nothing of one that has no results (yet)."""
    data = run["data"]
    if data is None:
        return None
    metrics: dict[str, Any] = {}
    for file, content in data["metrics"].items():
        if file.endswith(f"/{METRICS}") and "data" in content:
            metrics |= content["data"]
    params = data["params"].get("params.yaml", {}).get("data")
    if not metrics or params is None:
        return None
    return Experiment(run["name"] or run["rev"][:7], flatten(params), metrics)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections by dotted name; lists stay whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
