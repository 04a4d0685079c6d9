"""The command `cifarpipe train`: machines that do not meet, and arguments that are refused.

tests/test_several_machines.py has trainings.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `cifarpipe train vit --nodes 2` in a folder that has only params.yaml."""
    shutil.copy(ROOT / "params.demo.yaml", folder / "params.yaml")
    command = [Path(sys.executable).with_name("cifarpipe"), "train", "vit", "--nodes", "2"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(("rank", "taken"), [(0, False), (0, True), (1, False)])
@pytest.mark.thorough
def test_machines_that_do_not_meet(tmp_path: Path, rank: int, taken: bool) -> None:
    """One message and exit code 2, also if another program has the port of machine 0."""
    with socket.socket() as other:
        other.bind(("localhost", 0))
        port = other.getsockname()[1]
        if taken:
            other.listen()
        else:
            other.close()
        address = f"localhost:{port}"
        done = start(tmp_path, "--rank", str(rank), "--address", address, "--timeout", "1")
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr == (
        f"error: The 2 machines did not meet at {address} (--timeout: 1 seconds).\n"
        "Start the same command on all of them, with --rank 0 to 1. The port of machine 0 must be "
        "free, and the others must reach it.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("rank", "address", "message"),
    [
        ("2", "first:29500", "--rank is 2, of 2 machines.\nAllowed: 0 to 1."),
        *(
            (
                "0",
                address,
                f"--address is {address!r}.\nAllowed: HOST:PORT, such as first:29500, with a port "
                f"of 1 to 65535.",
            )
            for address in ("first", ":29500", "first:99999", "http://first:29500", "first:２９")
        ),
    ],
)
def test_refused_arguments(tmp_path: Path, rank: str, address: str, message: str) -> None:
    done = start(tmp_path, "--rank", rank, "--address", address)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


@pytest.mark.parametrize("level", [None, "INFO"])
def test_log_level_of_torch_is_that_of_the_user(level: str | None) -> None:
    """Of the import alone, PyTorch's C++ part logs less."""
    others = {key: value for key, value in os.environ.items() if key != LOG_LEVEL}
    done = subprocess.run(
        [sys.executable, "-c", f"import cifarpipe.cli.train, os; print(os.getenv({LOG_LEVEL!r}))"],
        env=others | ({} if level is None else {LOG_LEVEL: level}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{level}\n"
