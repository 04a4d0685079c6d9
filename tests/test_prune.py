"""`cifarpipe prune`: files of models that are not in params.yaml are removed, all others kept."""

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cifarpipe.cli.main import main
from cifarpipe.store.paths import LOGS, SOURCE_SEEN, artifact, model_report, resume_folder
from tests.support.params_text import CONTENT, changed

KEPT = ("vit", "convmixer")
REMOVED = ("old", "vit2")
Run = Callable[..., tuple[int, str, str]]


def files_of(model: str) -> list[Path]:
    return [
        artifact(model, "model.safetensors"),
        model_report(model, "metrics.json"),
        resume_folder(model) / "state.pt",
        LOGS / f"{model}.csv",
    ]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a workspace with files of four models, of which params.yaml has two."""
    monkeypatch.chdir(tmp_path)
    models = {name: CONTENT["models"][name] for name in KEPT}
    content = changed(models=models, report__baselines={})
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for path in (*OTHERS, *(path for model in KEPT + REMOVED for path in files_of(model))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path


# Files that belong to no removed model; the last one is written by a running training.
OTHERS = [SOURCE_SEEN, Path("reports/index.html"), Path("reports/models/.gitignore"),
          Path("data/prepared/old/a.npy"), Path("logs/old.txt"),
          Path("logs/.vit.17.partial.csv")]  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `cifarpipe prune` and returns exit code, stdout and stderr."""

    def run(*options: str, reply: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cifarpipe", "prune", *options])
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{reply}\n"))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return code, printed.out, printed.err

    return run


def all_files() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file()}


def test_files_of_removed_models_are_deleted(workspace: Path, run: Run) -> None:
    before = all_files()
    code, out, err = run("--yes")
    assert (code, err) == (0, "")
    assert before - all_files() == {path for model in REMOVED for path in files_of(model)}
    *listed, last = out.splitlines()
    folders = [f"{parent}/{model}" for model in REMOVED for parent in
               ("artifacts", "reports/models", ".resume")]  # fmt: skip
    assert not [folder for folder in folders if Path(folder).exists()]
    logs = [f"logs/{model}.csv" for model in REMOVED]
    assert sorted(listed) == sorted([*(f"{folder}/" for folder in folders), *logs])
    assert "Run `dvc repro`" in last


@pytest.mark.parametrize("reply", ["n", "", "no"])
def test_declined_prune_keeps_all_files(workspace: Path, run: Run, reply: str) -> None:
    before = all_files()
    code, out, _ = run(reply=reply)
    assert code == 1
    assert "artifacts/old/\n" in out
    assert "Removed" not in out
    assert all_files() == before


def test_confirmed_prune_deletes(workspace: Path, run: Run) -> None:
    code, out, _ = run(reply="y")
    assert code == 0
    assert "Removed" in out
    assert not [path for model in REMOVED for path in files_of(model) if path.exists()]


def test_nothing_to_prune_needs_no_confirmation(workspace: Path, run: Run) -> None:
    run("--yes")
    code, out, _ = run(reply="n")
    assert code == 0
    assert out == "Nothing to remove: all files belong to models of params.yaml.\n"


def test_prune_without_any_output_succeeds(workspace: Path, run: Run) -> None:
    for folder in ("artifacts", "reports", ".resume", "logs"):
        shutil.rmtree(folder)
    assert run("--yes")[0] == 0


def test_invalid_parameters_remove_nothing(workspace: Path, run: Run) -> None:
    Path("params.yaml").write_text("models: {}\n")
    before = all_files()
    code, _, err = run("--yes")
    assert code == 2
    assert err.startswith("error: params.yaml has ")
    assert all_files() == before
