"""Which commit the name of a revision means to `cifarpipe review`."""

import subprocess
from pathlib import Path

import pytest

from cifarpipe.cli.review.snapshot import Revision
from cifarpipe.config.errors import UserError


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the commits of a repository: `old`, `new` (HEAD), and an experiment of each."""
    monkeypatch.chdir(tmp_path)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")

    def commit(message: str) -> str:
        git(*identity, "commit", "--quiet", "--allow-empty", "--message", message)
        return git("rev-parse", "HEAD")

    git("init", "--quiet", "--initial-branch", "main")
    made = {name: commit(name) for name in ("experiment_of_old", "experiment_of_new", "old", "new")}
    for start in ("old", "new"):
        save_experiment(made[start], "half", made[f"experiment_of_{start}"])
    return made


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, check=True, text=True
    ).stdout.strip()


def save_experiment(start: str, name: str, commit: str) -> None:
    """Make the reference that DVC makes of an experiment that began at `start`."""
    git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/{name}", commit)


def test_experiment_that_began_at_head_is_preferred(commits: dict[str, str]) -> None:
    assert Revision("half").commit == commits["experiment_of_new"]


def test_branch_is_preferred_to_an_experiment_of_its_name(commits: dict[str, str]) -> None:
    save_experiment(commits["new"], "main", commits["old"])
    assert Revision("main").commit == commits["new"]


def test_experiments_of_one_name_are_listed(commits: dict[str, str]) -> None:
    git("checkout", "--quiet", commits["experiment_of_old"])
    with pytest.raises(UserError, match="2 experiments are named 'half'") as refused:
        Revision("half")
    names = str(refused.value).split()[-2:]
    assert {Revision(name).commit for name in names} == {
        commits["experiment_of_old"], commits["experiment_of_new"],
    }  # fmt: skip


def test_single_experiment_of_another_commit_is_found(commits: dict[str, str]) -> None:
    save_experiment(commits["old"], "only", commits["experiment_of_old"])
    assert Revision("only").commit == commits["experiment_of_old"]
    with pytest.raises(UserError, match="'none' is not a revision of this repository"):
        Revision("none")
