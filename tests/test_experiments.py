"""Experiments that DVC stores: only the finished ones are read."""

import json
import subprocess

import pytest

from cifarpipe.cli.experiments import flatten, read_experiments
from cifarpipe.config.errors import UserError


def row(name: str, accuracy: float, lr: float, state: str | None = None) -> dict[str, object]:
    """Return an experiment as `dvc exp show --json` prints it."""
    data = {
        "params": {"params.yaml": {"data": {"lr": lr, "models": {"vit": {"depth": 6}}}}},
        "metrics": {
            "reports/models/vit/metrics.json": {"data": {"vit": {"accuracy": accuracy}}},
            "reports/models/vit/training.json": {
                "data": {"vit": {"epoch": 3, "val_accuracy": 0.4}}
            },
            "reports/models/vit/gradcam.json": {"data": {"vit": {"road": 1}}},
            "reports/models/new/training.json": {"data": {"new": {"epoch": 1}}},
            "reports/models/old/metrics.json": {"error": {"type": "FileNotFoundError"}},
        },
    }
    run = {"name": name, "rev": "0123456789", "data": data}
    executor = None if state is None else {"state": state}
    return {"name": name, "revs": [run], "executor": executor}


def replace_dvc(monkeypatch: pytest.MonkeyPatch, commits: list[object], code: int = 0) -> None:
    """Let DVC print these commits and end with this exit code."""

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, json.dumps(commits), "ERROR: why")

    monkeypatch.setattr(subprocess, "run", run)


def test_only_finished_experiments_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an unfinished experiment, DVC shows the metrics of its commit."""
    (main,) = row("main", 0.5, 0.01)["revs"]
    found = [
        row("done", 0.6, 0.02),
        row("also", 0.7, 0.03, "success"),
        row("now", 0.5, 0.04, "running"),
        row("broken", 0.5, 0.05, "failed"),
        row("later", 0.5, 0.06, "queued"),
    ]
    workspace = {"rev": "workspace", "name": None, "data": None, "experiments": None}
    replace_dvc(monkeypatch, [workspace, {**main, "experiments": found}])
    experiments = read_experiments([])
    assert [each.name for each in experiments] == ["main", "done", "also"]
    assert experiments[1].params == {"lr": 0.02, "models.vit.depth": 6}
    assert experiments[1].metrics == {"vit": {"accuracy": 0.6, "epoch": 3, "val_accuracy": 0.4}}


def test_commit_without_results_or_parameters_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (bare,) = row("bare", 0.5, 0.01)["revs"]
    bare["data"]["params"] = {}
    none = {"rev": "0123456789", "name": "none", "data": None, "experiments": None}
    replace_dvc(monkeypatch, [{**bare, "experiments": None}, none])
    assert read_experiments(["bare", "none"]) == []


def test_error_of_dvc_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_dvc(monkeypatch, [], code=255)
    with pytest.raises(UserError, match="DVC can't list experiments: why"):
        read_experiments([])


def test_flatten_keeps_lists() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1, "a.d": [1, {"e": 2}], "f": None,
    }  # fmt: skip
