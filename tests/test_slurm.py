"""`cifarpipe slurm`: experiments as jobs, on a stand-in for Slurm and on a real one."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cifarpipe.cli.slurm.plan import Plan, PlannedExperiment
from cifarpipe.cli.slurm.status import active_jobs, state_of
from cifarpipe.cli.slurm.submit import (
    read_settings,
    refuse_names,
    require_pushed,
    task_command,
)
from cifarpipe.cli.slurm.task import dvc_commands, git_commands, main
from cifarpipe.cli.slurm.task import environment as job_environment
from cifarpipe.config.errors import UserError
from tests.support.study import (
    ROOT,
    clone_of,
    copy_of,
    experiments,
    run,
    shared_study,
    succeed,
)

# In place of sbatch: runs the jobs one after the other, and keeps their exit codes.
SBATCH = """#!/usr/bin/env python3
import os, re, subprocess, sys
*options, wrap = sys.argv[1:]
text = "\\n".join(options)
last = int(re.search(r"--array=0-(\\d+)", text)[1])
pattern = re.search(r"--output=(.+)", text)[1]
codes = []
for index in range(last + 1):
    with open(pattern.replace("%a", str(index)), "w") as log:
        job = {{"SLURM_ARRAY_TASK_ID": str(index), "SLURM_CPUS_PER_TASK": "1"}}
        codes.append(subprocess.run(wrap, shell=True, env=os.environ | job, stdout=log,
                                    stderr=log).returncode)
open("{home}/sbatch.log", "w").write(f"{{options}}\\n{{codes}}\\n")
print("17;cluster")
"""


@pytest.fixture
def study(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return copy_of(shared_study(tmp_path_factory), tmp_path / "study")


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in on the path; return the file where it leaves its options and exit codes."""
    folder, scratch = tmp_path / "bin", tmp_path / "scratch"
    for each in (folder, scratch):
        each.mkdir()
    program = folder / "sbatch"
    program.write_text(SBATCH.format(home=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_TMPDIR", str(scratch))
    return tmp_path / "sbatch.log"


def logs(study: Path) -> list[str]:
    return [path.read_text() for path in sorted((study / ".dvc/tmp/slurm").glob("*/*.log"))]


@pytest.mark.slow
def test_settings_become_experiments(study: Path, sbatch: Path) -> None:
    settings = study / "bins.txt"
    settings.write_text(
        "# One that is refused, one that can be run\n"
        "-S data.folder=nowhere -S data.source=folder\n\n"
        "-S evaluate.calibration_bins=8 -S misclassified.count=3  # fewer\n"
    )
    done = run(study, "cifarpipe", "slurm", "--settings", "bins.txt", "--", "--time=2:00:00")
    assert done.returncode == 0, done.stderr
    assert "Job 17: 2 experiments, bins-1, bins-2.\n" in done.stdout
    options, codes = sbatch.read_text().splitlines()
    assert "--array=0-1" in options
    assert "--time=2:00:00" in options
    assert [code == "0" for code in codes.strip("[]").split(", ")] == [False, True]
    assert "failed to run: python -m stages." in logs(study)[0]
    found = experiments(study)
    assert set(found) == {"bins-2"}
    params = succeed(study, "git", "show", f"{found['bins-2']}:params.yaml")
    assert "calibration_bins: 8" in params
    assert "count: 3" in params
    # Nothing was trained again, nothing is left, and the files are in the study's own cache.
    assert "Running stage 'train" not in "".join(logs(study))
    assert not list((study.parent / "scratch").iterdir())
    assert succeed(study, "git", "status", "--porcelain", "--untracked-files=no") == ""
    succeed(study, "dvc", "exp", "apply", "bins-2")
    assert "up to date" in succeed(study, "dvc", "status", "evaluate@vit")
    done = run(study, "cifarpipe", "slurm")
    assert done.returncode == 1
    failed, finished = done.stdout.splitlines()
    assert failed.startswith("17_0  bins-1: failed, see ")
    assert finished == "17_1  bins-2: finished"
    # The names are taken now.
    succeed(study, "git", "checkout", "-q", ".")
    done = run(study, "cifarpipe", "slurm", "--settings", "bins.txt")
    assert done.returncode == 2
    assert "These experiments already exist, wait or run: bins-2." in done.stderr


@pytest.mark.slow
def test_queued_experiments_become_jobs(study: Path, sbatch: Path) -> None:
    succeed(study, "dvc", "exp", "run", "--queue", "--name", "few",
            "-S", "evaluate.calibration_bins=6")  # fmt: skip
    done = run(study, "cifarpipe", "slurm", "--queue")
    assert done.returncode == 0, done.stderr + done.stdout
    assert sbatch.read_text().splitlines()[1] == "[0]", logs(study)
    params = succeed(study, "git", "show", f"{experiments(study)['few']}:params.yaml")
    assert "calibration_bins: 6" in params
    assert "few" not in succeed(study, "dvc", "queue", "status")
    done = run(study, "cifarpipe", "slurm", "--queue")
    assert done.returncode == 2
    assert done.stderr.startswith("error: The queue has no experiment")


@pytest.mark.slow
def test_nodes_without_our_folder_use_git_and_the_remote(
    study: Path, sbatch: Path, tmp_path: Path
) -> None:
    succeed(tmp_path, "git", "init", "-q", "--bare", "-b", "main", "cifar.git")
    succeed(study, "git", "remote", "add", "origin", str(tmp_path / "cifar.git"))
    succeed(study, "dvc", "remote", "add", "-d", "--local", "storage", str(tmp_path / "storage"))
    succeed(study, "git", "push", "-q", "origin", "main")
    succeed(study, "dvc", "push", "-q")
    (study / "bins.txt").write_text("-S evaluate.calibration_bins=9\n")
    command = ["cifarpipe", "slurm", "--settings", "bins.txt", "--name", "far", "--origin"]
    done = run(study, *command, str(tmp_path))
    assert done.returncode == 2
    assert "git ls-remote" in done.stderr
    succeed(study, *command, str(tmp_path / "cifar.git"))
    assert sbatch.read_text().splitlines()[1] == "[0]", logs(study)
    assert "Running stage 'train" not in "".join(logs(study))
    assert "far-1" not in experiments(study)
    other = clone_of(tmp_path / "cifar.git", tmp_path / "other")
    succeed(other, "dvc", "exp", "pull", "origin", "far-1")
    assert "far-1" in experiments(other)


@pytest.mark.thorough
def test_commit_below_one_that_a_colleague_pushed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tip of the remote branch is not known here."""
    remote = str(tmp_path / "remote.git")
    succeed(tmp_path, "git", "init", "-q", "--bare", "-b", "main", remote)
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))

    def commit(folder: Path) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        succeed(folder, "git", *identity, "commit", "-q", "--allow-empty", "-m", folder.name)
        return succeed(folder, "git", "rev-parse", "HEAD").strip()

    succeed(tmp_path, "git", "clone", "-q", remote, str(ours))
    pushed = commit(ours)
    succeed(ours, "git", "push", "-q", "origin", "HEAD:main")
    succeed(tmp_path, "git", "clone", "-q", remote, str(theirs))
    commit(theirs)
    succeed(theirs, "git", "push", "-q", "origin", "HEAD:main")
    succeed(theirs, "git", "push", "-q", "origin", f"{commit(theirs)}:refs/pull/1/head")
    before = succeed(ours, "git", "for-each-ref")
    monkeypatch.chdir(ours)
    require_pushed(remote, {pushed})
    own = commit(ours)
    with pytest.raises(UserError, match=f"does not have the commit {own[:7]}.\nRun `git push`"):
        require_pushed(remote, {pushed, own})
    request = succeed(theirs, "git", "rev-parse", "HEAD").strip()
    assert run(ours, "git", "cat-file", "-e", request).returncode  # not fetched
    succeed(ours, "git", "reset", "-q", "--hard", pushed)
    assert succeed(ours, "git", "for-each-ref") == before


@pytest.mark.thorough
def test_settings_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(tmp_path, "git", "init", "-q")
    shutil.copy(ROOT / "params.demo.yaml", tmp_path / "params.yaml")
    succeed(tmp_path, "git", "add", "-A")
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid")
    succeed(tmp_path, "git", *identity, "commit", "-qm", "First")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.txt"
    for text, message in (
        ("-S lr=1\nlr=2\n", r"line 2: 'lr=2'; allowed: -S KEY=VALUE"),
        ("-S\n", r"line 1: '-S'; allowed"),
        ("-S lr=1 --force\n", r"line 1: .*; allowed"),
        ("-S lr\n", r"line 1: '-S lr'; allowed"),
        ("-S lr='1\n", r"line 1: no closing quotation"),
        ("-S lr=-1\n", r"line 1: (?s:.*)lr"),
        ("-S lr=0.1,0.2\n", r"line 1: (?s:.*)lr"),
        ("-S rate=1\n", r"line 1: DVC rejects these settings: Could not override 'rate'"),
        ("-S +rate=1\n", r"line 1: (?s:.*)rate is not a known key"),
        ("-S lr.vit=1\n", r"line 1: DVC rejects these settings: Could not override 'lr.vit'"),
        ("-S lr=[1\n", r"line 1: DVC rejects these settings: no viable alternative at input '\[1'"),
        ("-S models.vit.augment.rotate=8\n", r"To append to your config use \+models"),
        ("-S +lr=0.003\n", r"An item is already at 'lr'"),
        (
            "-S lr=-1\n",
            r"with these settings, params.yaml has 1 error:\n  - lr is -1.*\nCorrect that line\.$",
        ),
        ("# nothing\n\n", r"has no line with settings"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_settings(file, "a")
    file.write_bytes(b"-S lr=\xff")
    with pytest.raises(UserError, match="can't be read: it is not text in UTF-8"):
        read_settings(file, "a")
    with pytest.raises(UserError, match="can't be read: Is a directory"):
        read_settings(tmp_path, "a")
    file.write_text("\ufeff-S lr=1\n-S '+models.vit.augment={crop: 4}'\n")
    one, two = read_settings(file, "a")
    assert (one.name, one.overrides) == ("a-1", ["lr=1"])
    assert (two.name, two.overrides) == ("a-2", ["+models.vit.augment={crop: 4}"])
    with Path("params.yaml").open("a") as params:
        params.write("# changed")
    with pytest.raises(UserError, match=r"without these changes:\n.*params\.yaml\nCommit"):
        read_settings(file, "a")
    for name in ("a/b", "my rates", "a..b", "", "-a"):
        with pytest.raises(UserError, match="allowed: letters, digits, _ and -"):
            refuse_names([name])


def test_states_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / name))

    def answer(script: str) -> None:
        squeue.write_text(f"#!/bin/sh\n{script}\n")
        squeue.chmod(0o755)

    answer("printf '0 RUNNING\\n1 COMPLETING\\nN/A PENDING\\n'")
    active = active_jobs("7")
    assert active == {0: "running", 1: "completing"}
    for index, code in ((2, "0"), (3, "2")):
        (tmp_path / f"{index}.code").write_text(code)
    states = [state_of(tmp_path, index, active).split(",")[0] for index in range(5)]
    assert states == ["running", "completing", "finished", "failed", "killed"]
    answer("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert active_jobs("7") == {}
    answer("echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"`squeue` failed: .*Unable to contact"):
        active_jobs("7")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UserError, match="`squeue` is not installed"):
        active_jobs("7")


def test_job_that_can_not_start_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path, 0) == 1
    assert "plan.json is damaged" in capsys.readouterr().out
    assert (tmp_path / "0.code").read_text() == "1"


def test_commands_of_a_job() -> None:
    experiment = PlannedExperiment("a-1", "abc", ["lr=1", "seed=2"], None)
    plan = Plan("/repo", "/repo/.dvc/cache", "", {}, "/raw", ["me", "me@here"], [experiment])
    cache, run, push = dvc_commands(plan, experiment)
    assert cache == ["dvc", "cache", "dir", "--local", "/repo/.dvc/cache"]
    assert run == ["dvc", "exp", "run", "--name", "a-1", "-S", "lr=1", "-S", "seed=2"]
    assert push == ["dvc", "exp", "push", "origin", "a-1", "--no-cache"]
    far = replace(plan, cache=None, remotes={"storage": "/store"})
    clone, checkout, *_ = git_commands(far, experiment)
    remote, run, push = dvc_commands(far, experiment)
    assert clone[-2:] == ["/repo", "."]
    assert checkout[-1] == "abc"
    assert remote[-4:] == ["--local", "storage", "url", "/store"]
    assert run[-1] == "--pull"
    assert push == ["dvc", "exp", "push", "origin", "a-1"]


def test_cores_of_a_job_are_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan("/repo", None, "", {}, "/raw", ["me", "me@here"], [])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    found = job_environment(plan)
    assert found["OMP_NUM_THREADS"] == "8"
    assert found["CIFARPIPE_DATA"] == "/raw"
    assert found["CIFARPIPE_SHARE_GPU"] == "1"
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert job_environment(plan)["OMP_NUM_THREADS"] == "1"


def test_command_of_a_job_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "an environment" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho $# $@\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    command = task_command(Path("/a folder/it's"))
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True,
        env=os.environ | {"SLURM_ARRAY_TASK_ID": "3"},
    )  # fmt: skip
    assert done.stdout == "4 -m cifarpipe.cli.slurm.task /a folder/it's 3\n"
