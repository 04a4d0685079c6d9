"""What a report says it was made by."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from cifarpipe.report.provenance import REPORTED, git_revision, provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a repository with one commit."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set inside git's hooks
        monkeypatch.delenv(name, raising=False)
    for name in ("cifarpipe/code.py", "dvc.lock", "reports/index.html", "params.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    git("init", "-q")
    commit("first")
    return tmp_path


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_revision_is_gits(repository: Path) -> None:
    revision = git_revision()
    assert len(revision) == 12
    assert git("rev-parse", "HEAD").startswith(revision)


def commit(message: str) -> None:
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--no-verify", "-m", message)


def test_results_and_documents_make_no_other_revision(repository: Path) -> None:
    clean = git_revision()
    for written in ("reports/index.html", "dvc.lock", "new.txt"):
        (repository / written).write_text("second")
    assert git_revision() == clean
    commit("second")
    assert git_revision() == clean
    assert not git("rev-parse", "HEAD").startswith(clean)


@pytest.mark.parametrize("path", ["cifarpipe/code.py", "cifarpipe/new.py", "params.yaml"])
def test_changes_of_what_makes_results_are_told(repository: Path, path: str) -> None:
    clean = git_revision()
    (repository / path).write_text("second")
    assert git_revision() == f"{clean} with changes"
    commit("second")
    assert git("rev-parse", "HEAD").startswith(git_revision())
    assert git_revision() != clean


def test_a_copy_that_git_ignores_has_the_current_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / ".gitignore").write_text("copy/\n")
    commit("ignore")
    shutil.copytree(repository / "cifarpipe", repository / "copy/cifarpipe")
    monkeypatch.chdir(repository / "copy")
    assert git("rev-parse", "HEAD").startswith(git_revision())


def test_outside_a_repository_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git_revision() == "none"


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() == "none"


def test_versions_are_those_in_use() -> None:
    found = provenance(REPORTED)
    assert list(found) == ["revision", "Python", *REPORTED]
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
