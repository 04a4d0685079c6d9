"""One training on two machines: two nodes, each with a folder of its own."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.support.study import copy_project, environment, replace_in, small_params, succeed

pytestmark = pytest.mark.slow
EPOCHS = 12


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two folders with the same project and prepared images."""
    params = small_params()
    params["models"] = {"convmixer": params["models"]["convmixer"] | {"epochs": EPOCHS}}
    home = tmp_path_factory.mktemp("machines")
    copy_project(home / "first", params)
    succeed(home / "first", "dvc", "repro", "prepare")
    shutil.copytree(home / "first", home / "second", symlinks=True)
    return [home / "first", home / "second"]


def start(machines: list[Path]) -> list[subprocess.Popen[str]]:
    """Start the training as docs/cluster.md says."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for rank, folder in enumerate(machines):
        command = [
            "cifarpipe", "train", "convmixer", "--nodes", "2", "--rank", str(rank),
            "--address", f"localhost:{port}", "--processes", "1",
        ]  # fmt: skip
        processes.append(
            subprocess.Popen(
                command, cwd=folder, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=environment() | {"OMP_NUM_THREADS": "1"},
            )
        )  # fmt: skip
    return processes


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for both machines, and return what they printed."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs


def test_two_machines_train_one_model_and_resume(machines: list[Path]) -> None:
    first, second = machines
    history, weights = Path("logs/convmixer.csv"), Path("artifacts/convmixer/model.safetensors")
    printed = finish(start(machines))
    # The first machine prints and writes, and it alone.
    assert printed[0].count("Epoch: ") == EPOCHS
    assert "Epoch: " not in printed[1]
    assert not (second / weights).exists()
    assert not (second / history).exists()
    expected, epochs = (first / weights).read_bytes(), pd.read_csv(first / history)

    # Both are stopped after some epochs; only the first one has a state.
    shutil.rmtree(first / "artifacts")
    (first / history).unlink()
    processes = start(machines)
    deadline = time.monotonic() + 200
    while not (first / history).exists() or len(pd.read_csv(first / history)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in processes:
        process.terminate()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode
    assert list((first / ".resume/convmixer").glob("*/first"))
    assert not list((second / ".resume").rglob("first"))
    printed = finish(start(machines))
    assert "convmixer: resuming after epoch " in printed[0]
    assert printed[0].count("Epoch: ") < EPOCHS
    assert (first / weights).read_bytes() == expected
    columns = ["epoch", "train_loss", "val_loss", "val_acc", "lr"]
    pd.testing.assert_frame_equal(pd.read_csv(first / history)[columns], epochs[columns])


def refuse(machines: list[Path]) -> list[str]:
    """Start the training, which both machines must refuse; return what they printed."""
    processes = start(machines)
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], "\n".join(outputs)
    assert not any("Traceback" in output for output in outputs), "\n".join(outputs)
    return outputs


def test_machines_that_differ_are_refused(machines: list[Path], tmp_path: Path) -> None:
    first, second = machines
    other = tmp_path / "other"
    shutil.copytree(second, other, symlinks=True)
    replace_in(other / "params.yaml", "lr: 0.01", "lr: 0.02")
    for output in refuse([first, other]):
        assert "the machines of this training differ in params.yaml.\nAll need" in output


def test_error_of_another_machine_is_printed_there(machines: list[Path], tmp_path: Path) -> None:
    first, second = machines
    other = tmp_path / "other"
    shutil.copytree(second, other, symlinks=True)
    shutil.rmtree(other / "data/prepared")
    printed, reason = refuse([first, other])
    assert "another process of this training stopped" in printed
    assert "data/prepared" in reason


def test_two_machines_equal_one_with_two_processes(machines: list[Path]) -> None:
    first, _ = machines
    if not (first / "artifacts").exists():
        finish(start(machines))
    one = first.parent / "one"
    shutil.copytree(first, one, symlinks=True)
    shutil.rmtree(one / "artifacts")
    replace_in(one / "params.yaml", "devices: 1", "devices: 2")
    succeed(one, sys.executable, "-m", "stages.train", "convmixer")
    columns = ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr"]
    found, expected = (
        pd.read_csv(folder / "logs/convmixer.csv")[columns] for folder in (first, one)
    )
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)


def test_dvc_records_a_training_from_outside(machines: list[Path]) -> None:
    first, _ = machines
    if not (first / "artifacts").exists():
        finish(start(machines))
    succeed(first, "dvc", "commit", "--force", "train@convmixer")
    status = succeed(first, "dvc", "status", "train@convmixer")
    assert "Data and pipelines are up to date" in status
