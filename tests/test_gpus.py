"""GPUs: one training each, whoever asks first; nobody is left waiting by the dead."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cifarpipe.training import gpus
from cifarpipe.training.gpus import claimed, claimed_gpus

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from cifarpipe.training.gpus import claimed

folder, count, *names = sys.argv[1:]
tell = lambda: print("waits", flush=True)
with claimed(names, int(count), tell=tell, folder=Path(folder)) as mine:
    print(*mine, flush=True)
    sys.stdin.read()
"""


@dataclass
class Holder:
    """A process that claims, says what it got, and lets go when its input ends."""

    process: subprocess.Popen[str]

    def said(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def let_go(self) -> None:
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0

    def die(self) -> None:
        self.process.kill()
        self.process.communicate()


def hold(folder: Path, count: int, *names: str) -> Holder:
    command = [sys.executable, "-c", HOLDER, str(folder), str(count), *names]
    pipe = subprocess.PIPE
    return Holder(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "POLL", 0.02)


def tell_nobody() -> None:
    raise AssertionError("somebody had to wait")


def test_the_first_free_one_is_taken_and_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            claimed(["a", "b"], 1, tell=tell_nobody, folder=tmp_path) as first,
            claimed(["a", "b"], 1, tell=tell_nobody, folder=tmp_path) as second,
        ):
            assert (first, second) == ([0], [1])


def test_processes_get_different_ones_and_the_third_waits(tmp_path: Path) -> None:
    one, two = hold(tmp_path, 1, "a", "b"), hold(tmp_path, 1, "a", "b")
    assert {one.said(), two.said()} == {"0", "1"}
    three = hold(tmp_path, 1, "a", "b")
    assert three.said() == "waits"
    two.let_go()
    assert three.said() in {"0", "1"}
    one.let_go()
    three.let_go()


def test_who_is_killed_lets_go(tmp_path: Path) -> None:
    one = hold(tmp_path, 1, "a")
    assert one.said() == "0"
    one.die()
    with claimed(["a"], 1, tell=tell_nobody, folder=tmp_path) as mine:
        assert mine == [0]


def test_several_are_had_together_or_not_at_all(tmp_path: Path) -> None:
    one = hold(tmp_path, 1, "a", "b")
    assert one.said() == "0"
    both = hold(tmp_path, 2, "a", "b")
    assert both.said() == "waits"
    with claimed(["b"], 1, tell=lambda: None, folder=tmp_path) as mine:  # it holds none meanwhile
        assert mine == [0]
    one.let_go()
    assert both.said() == "0 1"
    both.let_go()


def test_a_failure_gives_back(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        claimed(["a"], 1, tell=tell_nobody, folder=tmp_path) as mine,
    ):
        1 / len(mine[1:])
    with claimed(["a"], 1, tell=tell_nobody, folder=tmp_path) as mine:
        assert mine == [0]


def test_without_gpus_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with claimed_gpus(2, "vit") as one, claimed_gpus(2, "vit") as two:
        assert one == two == [0, 1]


def test_gpus_are_shared_only_if_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpus, "gpu_name", lambda number: f"gpu-{number}")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    other = hold(tmp_path, 1, "gpu-0")
    assert other.said() == "0"
    monkeypatch.setenv(gpus.SHARE, "1")
    with claimed_gpus(1, "vit") as mine:
        assert mine == [0]
    monkeypatch.delenv(gpus.SHARE)

    def free_it(_seconds: float) -> None:
        other.let_go()

    monkeypatch.setattr(gpus, "time", SimpleNamespace(sleep=free_it))
    with claimed_gpus(1, "vit") as mine:
        assert mine == [0]
    assert "vit waits until 1 of 1 GPUs is free of other trainings" in capsys.readouterr().out
