"""`cifarpipe current`: the stages that a dry run of DVC would run."""

import json
import subprocess

import pytest

from cifarpipe.cli.current import changed_inputs, check_current, stale_stages
from cifarpipe.config.errors import UserError

# Printed by `dvc repro --dry --allow-missing` of DVC 3.
CURRENT = """\
Running stage 'data/dvc.yaml:check':
> python -m stages.check

Stage 'prepare' didn't change, skipping
Stage 'train@vit' didn't change, skipping
Stage 'report' didn't change, skipping
Use `dvc push` to send your updates to remote storage.
"""
STALE = """\
Running stage 'data/dvc.yaml:check':
> python -m stages.check

Stage 'prepare' didn't change, skipping
Running stage 'train@vit_t2t':
> python -m stages.train vit_t2t

Stage 'train@resnet18_ln' didn't change, skipping
Running stage 'report':
> python -m stages.report

Use `dvc push` to send your updates to remote storage.
"""
# An error after the first stages.
STOPPED = """\
Running stage 'data/dvc.yaml:check':
> python -m stages.check

Running stage 'prepare':
> python -m stages.prepare

ERROR: failed to reproduce 'train@vit': [Errno 2] No such file or directory: 'data/prepared'
"""
INVALID = "'./dvc.yaml' is invalid.\n\nDid not find expected node content, in line 10, column 1\n"


@pytest.mark.parametrize(
    ("output", "stages"),
    [
        (CURRENT, []),
        (STALE, ["train@vit_t2t", "report"]),
        (STOPPED, ["prepare", "train@vit"]),
        (INVALID, []),
        ("", []),
    ],
)
def test_stale_stages_are_those_that_would_run(output: str, stages: list[str]) -> None:
    assert stale_stages(output) == stages


def test_stage_that_always_runs_is_not_stale() -> None:
    assert stale_stages("Running stage 'data/dvc.yaml:check':\n> x\n") == []
    assert stale_stages("Running stage 'other/dvc.yaml:check':\n> x\n") == ["other/dvc.yaml:check"]


def test_quoted_stage_line_is_not_a_stage() -> None:
    assert stale_stages("> echo \"Running stage 'a':\"\nStage 'b' didn't change, skipping\n") == []


def test_changes_are_files_and_parameters_but_not_missing_files() -> None:
    deps = {
        "data/source.json": "deleted",
        "stages/prepare.py": "modified",
        "params.yaml": {"data": "modified", "data.image_size": "new"},
    }
    outs = {"data/prepared": "not in cache"}
    status = {"prepare": [{"changed deps": deps}, {"changed outs": outs}, "changed command"]}
    expected = ["`data` in params.yaml", "`data.image_size` in params.yaml"]
    assert changed_inputs(json.dumps(status)) == ["stages/prepare.py", *expected, "changed command"]
    assert changed_inputs("{}") == changed_inputs("ERROR: failed") == []


def replace_dvc(monkeypatch: pytest.MonkeyPatch, output: str, error: str, code: int) -> list[str]:
    """Let DVC print this and end with this exit code; return the list of its arguments."""
    arguments: list[str] = []

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        arguments.extend(command)
        return subprocess.CompletedProcess(command, code, output, error)

    monkeypatch.setattr(subprocess, "run", run)
    return arguments


def test_current_lock_is_confirmed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = replace_dvc(monkeypatch, CURRENT, "", 0)
    check_current()
    assert capsys.readouterr().out == "dvc.lock is up to date.\n"
    assert {"repro", "--dry", "--allow-missing"} <= set(arguments)


@pytest.mark.parametrize(
    ("output", "error", "code", "message"),
    [
        (STALE, "", 0, "`dvc repro` would run train@vit_t2t report.\n"),
        (STOPPED, "ERROR: failed", 255, "`dvc repro` would run prepare train@vit ….\n"),
        ("", INVALID, 255, "'./dvc.yaml' is invalid."),
    ],
)
def test_stale_lock_and_errors_are_refused(
    monkeypatch: pytest.MonkeyPatch, output: str, error: str, code: int, message: str
) -> None:
    replace_dvc(monkeypatch, output, error, code)
    with pytest.raises(UserError) as refused:
        check_current()
    assert message in str(refused.value)
