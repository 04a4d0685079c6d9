"""What a report says it was made by."""

import subprocess
from pathlib import Path

import pytest
import torch

from cifarpipe.provenance import PACKAGES, git_revision, provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a repository with one commit."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set inside git's hooks
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "reports").mkdir()
    for name in ("code.py", "dvc.lock", "reports/index.html"):
        (tmp_path / name).write_text("first")
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--no-verify", "-m", "first")
    return tmp_path


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_revision_is_gits(repository: Path) -> None:
    revision = git_revision()
    assert len(revision) == 12
    assert git("rev-parse", "HEAD").startswith(revision)


def test_changes_are_told_but_not_those_of_the_report_itself(repository: Path) -> None:
    clean = git_revision()
    for written in ("reports/index.html", "dvc.lock"):
        (repository / written).write_text("second")
    (repository / "new.txt").write_text("not tracked")
    assert git_revision() == clean
    (repository / "code.py").write_text("second")
    assert git_revision() == f"{clean} with changes"


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
    found = provenance()
    assert list(found) == ["revision", "Python", *PACKAGES]
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
