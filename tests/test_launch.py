"""Starting a training: in this process, under torchrun, and what failures become."""

import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher import api

from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import cores
from cifarpipe.networks import devices
from cifarpipe.training import launch as module
from cifarpipe.training.distributed import World
from cifarpipe.training.launch import check_devices, joined, launch, run_on_devices
from cifarpipe.training.resume import locked

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: None)


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the variables that torchrun sets, for a single process."""
    variables = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start = dist.init_process_group
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    monkeypatch.setattr(
        dist,
        "init_process_group",
        lambda backend: start(backend, init_method=rendezvous, rank=0, world_size=1),
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda _count: None)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """Record number of processes and arguments of each launch instead of starting it."""
    found: list[tuple[int, tuple[str, ...]]] = []

    def elastic_launch(config: api.LaunchConfig, _entrypoint: str) -> object:
        return lambda *arguments: found.append((config.nproc_per_node, arguments))

    monkeypatch.setattr(api, "elastic_launch", elastic_launch)
    return found


def failing_launch(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_arguments: str) -> None:
        raise error

    monkeypatch.setattr(api, "elastic_launch", lambda *_: fail)


# Devices.


@pytest.mark.parametrize(("gpus", "unit"), [(0, "CPU core"), (3, "GPU")])
def test_too_many_devices_are_refused(
    gpus: int, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(module, "cores", lambda: 5)
    available = gpus or 5
    check_devices(available)
    expected = rf"train.devices is {available + 1}, and this machine has {available} {unit}s"
    with pytest.raises(UserError, match=expected):
        check_devices(available + 1)


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 4, 6})
    assert cores() == 3


# In this process.


def test_one_device_is_used_in_this_process(tmp_path: Path) -> None:
    calls: list[tuple[World, torch.device]] = []
    work = lambda *given: calls.append(given)  # noqa: E731
    run_on_devices(work, 1, name="vit", module="stages.train", states=tmp_path)
    assert calls == [(World(), CPU)]


@pytest.mark.usefixtures("group_of_one")
def test_launched_process_joins_its_group(tmp_path: Path) -> None:
    calls: list[tuple[World, torch.device, bool]] = []

    def work(world: World, device: torch.device) -> None:
        calls.append((world, device, dist.is_initialized()))

    run_on_devices(work, 1, name="vit", module="stages.train", states=tmp_path)
    assert calls == [(World(0, 1), CPU, True)]
    assert not dist.is_initialized()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(
    ("allowed", "available", "processes", "expected"),
    [(8, 8, 1, 8), (8, 8, 2, 4), (1, 8, 1, 1), (6, 8, 2, 3), (8, 4, 2, 2), (1, 8, 2, 1)],
)
def test_processes_of_one_machine_share_its_threads(
    allowed: int,
    available: int,
    processes: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: allowed)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(module, "cores", lambda: available)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    with joined():
        pass
    assert chosen == [expected]


@pytest.mark.usefixtures("group_of_one")
def test_first_process_of_a_machine_raises_the_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "is_main", False)  # of another machine
    with pytest.raises(UserError, match="no images"), joined():
        raise UserError("no images")
    assert not dist.is_initialized()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("error", [UserError("no images"), RuntimeError("Connection reset")])
def test_other_processes_exit_without_message(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ended, joined():
        raise error
    assert ended.value.code == 2
    assert not dist.is_initialized()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[pair.cc:534] Connection closed by peer [::1]:4711", UserError),
        ("[pair.cc:428] writev [::1]:38155: Broken pipe", UserError),
        ("NCCL error: remote process exited or there was a network error", UserError),
        ("The size of tensor a (3) must match", RuntimeError),
    ],
)
def test_lost_connection_is_not_a_bug_of_this_process(text: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as raised, joined():
        raise RuntimeError(text)
    assert type(raised.value) is expected


# Under torchrun.


def test_several_devices_start_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launches: list[tuple[int, tuple[str, ...]]]
) -> None:
    monkeypatch.setattr(module, "cores", lambda: 4)

    def work(*_given: object) -> None:
        raise AssertionError("called in the parent process")

    run_on_devices(work, 3, name="vit", module="stages.train", states=tmp_path / "vit")
    assert launches == [(3, ("-m", "stages.train", "vit"))]


def test_model_in_training_is_not_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launches: list[tuple[int, tuple[str, ...]]]
) -> None:
    monkeypatch.setattr(module, "cores", lambda: 4)
    with locked(tmp_path, "vit"), pytest.raises(UserError, match="is training vit already"):
        run_on_devices(print, 2, name="vit", module="stages.train", states=tmp_path)
    assert launches == []


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "1,2"), ("4,5,6", "5,6"), ("GPU-a,GPU-b,GPU-c", "GPU-b,GPU-c")]
)
@pytest.mark.usefixtures("launches")
def test_processes_see_only_the_locked_gpus(
    visible: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    launch([1, 2], "stages.train", "vit")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [([2, 2], 2), ([1, 2], 1), ([2, -15], 2), ([1, -9], 1), ([-9, -15], 1)],
)
def test_failed_processes_give_their_exit_code(
    exit_codes: list[int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(exit_codes)}
    monkeypatch.setattr(
        ChildFailedError, "__init__", lambda self: setattr(self, "failures", failures)
    )
    failing_launch(monkeypatch, ChildFailedError())
    with pytest.raises(SystemExit) as ended:
        launch([0, 1], "stages.train")
    assert ended.value.code == expected


def test_signal_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_launch(monkeypatch, SignalException("stopped", signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        launch([0, 1], "stages.train")
    assert ended.value.code == 128 + 15


@pytest.mark.dvc
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_user_error_of_processes_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only the processes' own messages are printed, and no temporary files are left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "fails.py").write_text(
        "import sys; print('error: no images', file=sys.stderr); sys.exit(2)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        launch([0, 1], "fails")
    assert ended.value.code == 2
    printed = capfd.readouterr().err
    assert set(printed.splitlines()) == {"error: no images"}, printed
    assert not list(temporary.iterdir())
