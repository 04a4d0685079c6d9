"""The finished experiments that DVC stores: parameters and metrics of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarpipe.cli.dvc_command import run_dvc
from cifarpipe.config.errors import UserError

METRICS = ("training.json", "metrics.json")  # of each model, by `train` and `evaluate`


@dataclass(frozen=True)
class Experiment:
    """A finished run: an experiment, or the results of a commit."""

    name: str
    """DVC's name of it; of a commit its branch."""
    params: Mapping[str, Any]
    """By dotted name."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Of each model."""


def read_experiments(revisions: list[str]) -> list[Experiment]:
    """Return the finished experiments of some commits, and the commits' own results.

    Args:
        revisions: Commits that experiments started from; by default the current one.

    Raises:
        UserError: DVC fails; with its message.
    """
    options = [part for revision in revisions for part in ("--rev", revision)]
    done = run_dvc("exp", "show", "--json", *options)
    if done.returncode:
        reason = done.stderr.strip().removeprefix("ERROR: ") or "dvc exp show failed"
        raise UserError(f"DVC can't list experiments: {reason}")
    found = []
    for commit in json.loads(done.stdout):
        if commit["rev"] == "workspace":
            continue
        # Experiments that are queued, running or failed show the metrics of their commit.
        finished = [
            each["revs"][0]
            for each in commit["experiments"] or []
            if (each["executor"] or {}).get("state", "success").lower() == "success"
        ]
        runs = [commit, *finished]
        found += [experiment for run in runs if (experiment := _experiment(run))]
    return found


def _experiment(run: Mapping[str, Any]) -> Experiment | None:
    """Return the experiment of a row of DVC's output; None without results."""
    data = run["data"]
    if data is None:
        return None
    metrics: dict[str, dict[str, Any]] = {}
    for file, content in data["metrics"].items():
        if Path(file).name in METRICS and "data" in content:
            for model, values in content["data"].items():
                metrics.setdefault(model, {}).update(values)
    metrics = {model: values for model, values in metrics.items() if "accuracy" in values}
    params = data["params"].get("params.yaml", {}).get("data")
    if not metrics or params is None:
        return None
    return Experiment(run["name"] or run["rev"][:7], flatten(params), metrics)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections with dotted names; lists are kept."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
