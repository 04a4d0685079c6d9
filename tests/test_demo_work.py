"""Experiments with the demo's parameters in a clean clone, and queues with killed processes."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.study import (
    OWN_PROCESSES,
    ROOT,
    experiments,
    link_environment,
    make_study,
    queue,
    stages_that_ran,
    succeed,
    wait_for_queue,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def own_processes() -> Iterator[None]:
    """Run commands in process groups of their own; a signal to that of a fork stops the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OWN_PROCESSES, "1")
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    folder = make_study(tmp_path_factory.mktemp("demo") / "clone", params)
    link_environment(folder)
    return folder


@pytest.fixture
def clone(demo: Path) -> Iterator[Path]:
    """The study as committed, without experiments; all its processes are killed afterwards."""
    yield demo
    for process in processes(demo):
        process.kill()
    succeed(demo, "git", "checkout", "-q", ".")
    succeed(demo, "dvc", "checkout", "-q")
    succeed(demo, "dvc", "exp", "remove", "-A", "-q")
    succeed(demo, "dvc", "queue", "remove", "--all", "-q")  # failed ones are not among the former


def processes(folder: Path, command: str = "") -> list[psutil.Process]:
    """Return the processes that run in a folder and have `command` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            here = Path(process.cwd()).is_relative_to(folder)
            if here and command in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def digests(folder: Path) -> dict[str, str]:
    """Return the hash of every file of the workspace."""
    own = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp", "cache", ".venv", "__pycache__"} & {*path.parts}
    ]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}


def test_repeated_experiment_computes_nothing(clone: Path) -> None:
    first = succeed(clone, "dvc", "exp", "run", "-S", "lr=0.005")
    models = yaml.safe_load((clone / "params.yaml").read_text())["models"]
    assert {f"train@{name}" for name in models} < stages_that_ran(first)
    started = time.monotonic()
    second = succeed(clone, "dvc", "exp", "run", "-S", "lr=0.005")
    print(f"the second run took {time.monotonic() - started:.1f} s")
    assert not stages_that_ran(second)


def test_temporary_experiment_leaves_workspace_unchanged(clone: Path) -> None:
    before = digests(clone)
    succeed(clone, "dvc", "exp", "run", "--temp", "--name", "t", "-S", "models.convmixer.depth=1")
    assert digests(clone) == before
    assert succeed(clone, "git", "status", "--porcelain") == ""
    depth = succeed(clone, "git", "show", f"{experiments(clone)['t']}:params.yaml")
    assert yaml.safe_load(depth)["models"]["convmixer"]["depth"] == 1


def four_in_a_queue(clone: Path, name: str, depths: str) -> list[str]:
    succeed(clone, "dvc", "queue", "remove", "--all")
    succeed(clone, "dvc", "exp", "run", "--queue", "--name", name,
            "-S", f"models.convmixer.depth=choice({depths})")  # fmt: skip
    succeed(clone, "dvc", "queue", "start", "-j", "2")
    return [f"{name}-{number + 1}" for number in range(4)]


def two_at_a_time(clone: Path, command: str = "stages.train") -> list[psutil.Process]:
    """Wait until `command` runs in two experiments at a time; by default until both train."""
    end = time.monotonic() + 600
    while len(found := processes(clone / ".dvc/tmp/exps", command)) < 2:
        assert time.monotonic() < end, queue(clone)
        time.sleep(0.2)
    return found


def wait_for_workers(clone: Path) -> None:
    """Wait until all started workers have ended."""
    end = time.monotonic() + 900
    while processes(clone, "queue-worker"):
        assert time.monotonic() < end, queue(clone)
        time.sleep(2)


def test_queue_of_four_gives_four_results(clone: Path) -> None:
    names = four_in_a_queue(clone, "four", "1,2,3,5")
    two_at_a_time(clone, "stages.")
    assert wait_for_queue(clone) == dict.fromkeys(names, "Success")
    results = {name: experiments(clone)[name] for name in names}
    found = {
        name: yaml.safe_load(succeed(clone, "git", "show", f"{commit}:params.yaml"))
        for name, commit in results.items()
    }
    assert [found[name]["models"]["convmixer"]["depth"] for name in names] == [1, 2, 3, 5]
    reports = {
        succeed(clone, "git", "show", f"{commit}:reports/models/convmixer/layers.csv")
        for commit in results.values()
    }
    assert len(reports) == 4
    assert succeed(clone, "git", "status", "--porcelain") == ""


def test_killed_training_loses_only_its_experiment(clone: Path) -> None:
    names = four_in_a_queue(clone, "train", "6,7,8,9")
    two_at_a_time(clone)[0].kill()
    states = wait_for_queue(clone)
    assert sorted(states.values()) == ["Failed", "Success", "Success", "Success"]
    assert {name for name in names if states[name] == "Success"} == experiments(clone).keys()


def test_stopped_experiment_stops_only_its_worker(clone: Path) -> None:
    names = four_in_a_queue(clone, "stop", "14,15,16,17")
    two_at_a_time(clone)
    stopped = next(name for name, state in queue(clone).items() if state == "Running")
    succeed(clone, "dvc", "queue", "kill", stopped)
    wait_for_workers(clone)
    states = queue(clone)
    # The worker may have taken one more experiment when DVC stops it; that one is lost.
    lost = [name for name in names if states[name] == "Running"]
    assert len(lost) <= 1
    for name in lost:
        succeed(clone, "dvc", "queue", "kill", name)
    failed = {stopped, *lost}
    assert queue(clone) == {name: "Failed" if name in failed else "Success" for name in names}
    assert experiments(clone).keys() == {*names} - failed


def test_killed_worker_loses_only_its_experiment(clone: Path) -> None:
    names = four_in_a_queue(clone, "worker", "10,11,12,13")
    victim = two_at_a_time(clone)[0]
    os.killpg(os.getpgid(victim.pid), signal.SIGKILL)  # the worker and its children
    end = time.monotonic() + 600
    while sorted((states := queue(clone)).values()) != ["Running", *["Success"] * 3]:
        assert time.monotonic() < end, states
        time.sleep(2)
    (lost,) = {name for name in names if states[name] == "Running"}
    assert experiments(clone).keys() == {*names} - {lost}
    succeed(clone, "dvc", "queue", "kill", lost)
    assert "Running" not in queue(clone).values()
    depth = 10 + names.index(lost)
    succeed(clone, "dvc", "exp", "run", "--queue", "--name", "again",
            "-S", f"models.convmixer.depth={depth}")  # fmt: skip
    succeed(clone, "dvc", "queue", "start")
    assert wait_for_queue(clone)["again"] == "Success"
    assert "again" in experiments(clone)
