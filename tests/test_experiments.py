"""Experiments: those that are finished, and nothing of those that are not."""

import json
import subprocess

import pytest

from cifarpipe.cli.experiments import flatten, read_experiments
from cifarpipe.config.errors import UserError


def row(name: str, accuracy: float, rate: float, state: str | None = None) -> dict[str, object]:
    data = {
        "params": {"params.yaml": {"data": {"lr": rate, "models": {"vit": {"depth": 6}}}}},
        "metrics": {
            "reports/models/vit/metrics.json": {"data": {"vit": {"accuracy": accuracy}}},
            "reports/models/vit/cost.json": {"data": {"vit": {"macs": 1}}},
        },
    }
    run = {"name": name, "rev": "0123456789", "data": data}
    executor = None if state is None else {"state": state}
    return {"name": name, "revs": [run], "executor": executor}


def answer(monkeypatch: pytest.MonkeyPatch, commits: list[object], code: int = 0) -> None:
    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, json.dumps(commits), "ERROR: why")

    monkeypatch.setattr(subprocess, "run", run)


def test_only_what_is_finished_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC shows the commit's own metrics beside an experiment that is still running."""
    (main,) = row("main", 0.5, 0.01)["revs"]
    found = [
        row("done", 0.6, 0.02),
        row("also", 0.7, 0.03, "success"),
        row("now", 0.5, 0.04, "running"),
        row("broken", 0.5, 0.05, "failed"),
        row("later", 0.5, 0.06, "queued"),
    ]
    workspace = {"rev": "workspace", "name": None, "data": None, "experiments": None}
    answer(monkeypatch, [workspace, {**main, "experiments": found}])
    experiments = read_experiments([])
    assert [each.name for each in experiments] == ["main", "done", "also"]
    assert experiments[1].params == {"lr": 0.02, "models.vit.depth": 6}
    assert experiments[1].metrics == {"vit": {"accuracy": 0.6}}


def test_a_commit_without_results_or_parameters_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (bare,) = row("bare", 0.5, 0.01)["revs"]
    bare["data"]["params"] = {}
    none = {"rev": "0123456789", "name": "none", "data": None, "experiments": None}
    answer(monkeypatch, [{**bare, "experiments": None}, none])
    assert read_experiments(["bare", "none"]) == []


def test_what_dvc_complains_of_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, [], code=255)
    with pytest.raises(UserError, match="DVC can't list experiments: why"):
        read_experiments([])


def test_sections_become_dotted_names_and_lists_stay_whole() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1, "a.d": [1, {"e": 2}], "f": None,
    }  # fmt: skip
