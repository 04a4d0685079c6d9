"""Revision and package versions of a report."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from cifarpipe.report.provenance import PACKAGES, git_revision, provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a repository with one commit, and return it."""
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


def test_revision_is_the_commit(repository: Path) -> None:
    revision = git_revision()
    assert len(revision) == 12
    assert git("rev-parse", "HEAD").startswith(revision)


def commit(message: str) -> None:
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--no-verify", "-m", message)


def test_results_and_documents_do_not_change_revision(repository: Path) -> None:
    clean = git_revision()
    for written in ("reports/index.html", "dvc.lock", "new.txt"):
        (repository / written).write_text("second")
    assert git_revision() == clean
    commit("second")
    assert git_revision() == clean
    assert not git("rev-parse", "HEAD").startswith(clean)


@pytest.mark.parametrize("path", ["cifarpipe/code.py", "cifarpipe/new.py", "params.yaml"])
def test_changed_code_and_parameters_mark_the_revision(repository: Path, path: str) -> None:
    clean = git_revision()
    (repository / path).write_text("second")
    assert git_revision() == f"{clean} with changes"
    commit("second")
    assert git("rev-parse", "HEAD").startswith(git_revision())
    assert git_revision() != clean


def test_ignored_copy_has_current_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / ".gitignore").write_text("copy/\n")
    commit("ignore")
    shutil.copytree(repository / "cifarpipe", repository / "copy/cifarpipe")
    monkeypatch.chdir(repository / "copy")
    assert git("rev-parse", "HEAD").startswith(git_revision())


def test_revision_outside_repository_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git_revision() == "none"


def test_revision_without_git_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() == "none"


def test_versions_are_those_installed() -> None:
    found = provenance()
    assert list(found) == ["revision", "Python", *PACKAGES]
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
