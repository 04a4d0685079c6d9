"""Locks of GPUs: one training each, all or none, released by killed processes."""

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
import sys, types
from pathlib import Path
sys.modules["torch"] = types.ModuleType("torch")  # takes seconds to import; locks do not use it
from cifarpipe.training.gpus import claimed

folder, count, *names = sys.argv[1:]
on_wait = lambda: print("waits", flush=True)
with claimed(names, int(count), on_wait=on_wait, folder=Path(folder)) as locked:
    print(*locked, flush=True)
    sys.stdin.read()
"""


@dataclass
class Holder:
    """A process that locks resources, prints which, and releases them when its input ends."""

    process: subprocess.Popen[str]

    def read_line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def hold(folder: Path, count: int, *names: str) -> Holder:
    command = [sys.executable, "-c", HOLDER, str(folder), str(count), *names]
    pipe = subprocess.PIPE
    return Holder(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT))


@pytest.fixture(autouse=True)
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "POLL", 0.02)


def fail() -> None:
    raise AssertionError("waited for a lock")


def test_first_free_resource_is_locked_and_released(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            claimed(["a", "b"], 1, on_wait=fail, folder=tmp_path) as first,
            claimed(["a", "b"], 1, on_wait=fail, folder=tmp_path) as second,
        ):
            assert (first, second) == ([0], [1])


@pytest.mark.thorough
def test_third_process_waits_for_two_resources(tmp_path: Path) -> None:
    one, two = hold(tmp_path, 1, "a", "b"), hold(tmp_path, 1, "a", "b")
    assert {one.read_line(), two.read_line()} == {"0", "1"}
    three = hold(tmp_path, 1, "a", "b")
    assert three.read_line() == "waits"
    two.release()
    assert three.read_line() in {"0", "1"}
    one.release()
    three.release()


def test_killed_process_releases_its_lock(tmp_path: Path) -> None:
    one = hold(tmp_path, 1, "a")
    assert one.read_line() == "0"
    one.kill()
    with claimed(["a"], 1, on_wait=fail, folder=tmp_path) as numbers:
        assert numbers == [0]


@pytest.mark.thorough
def test_several_resources_are_locked_together(tmp_path: Path) -> None:
    one = hold(tmp_path, 1, "a", "b")
    assert one.read_line() == "0"
    both = hold(tmp_path, 2, "a", "b")
    assert both.read_line() == "waits"
    with claimed(
        ["b"], 1, on_wait=lambda: None, folder=tmp_path
    ) as numbers:  # a waiting process holds none
        assert numbers == [0]
    one.release()
    assert both.read_line() == "0 1"
    both.release()


def test_exception_releases_the_lock(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        claimed(["a"], 1, on_wait=fail, folder=tmp_path) as numbers,
    ):
        1 / len(numbers[1:])
    with claimed(["a"], 1, on_wait=fail, folder=tmp_path) as numbers:
        assert numbers == [0]


def test_without_gpus_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with claimed_gpus(2, "vit") as one, claimed_gpus(2, "vit") as two:
        assert one == two == [0, 1]


def test_gpus_are_shared_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpus, "gpu_name", lambda number: f"gpu-{number}")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    other = hold(tmp_path, 1, "gpu-0")
    assert other.read_line() == "0"
    monkeypatch.setenv(gpus.SHARE_GPUS, "1")
    with claimed_gpus(1, "vit") as numbers:
        assert numbers == [0]
    monkeypatch.setenv(gpus.SHARE_GPUS, "0")

    def free_gpu(_seconds: float) -> None:
        other.release()

    monkeypatch.setattr(gpus, "time", SimpleNamespace(sleep=free_gpu))
    with claimed_gpus(1, "vit") as numbers:
        assert numbers == [0]
    assert "vit waits until 1 of 1 GPUs is free of other trainings" in capsys.readouterr().out
