"""DVC runs in this environment, whether or not it is activated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifarpipe.cli.dvc_command import dvc_command, environment, run_dvc

BIN = str(Path(sys.executable).parent)


@pytest.mark.parametrize("path", ["/usr/bin:/bin", f"{BIN}:/usr/bin:/bin"])
def test_python_is_that_of_this_environment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    assert environment()["PATH"] == f"{BIN}:/usr/bin:/bin"
    which = ["sh", "-c", "command -v python"]
    done = subprocess.run(which, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{BIN}/python"
    assert environment() == os.environ | {"PATH": environment()["PATH"]}


def test_dvc_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert dvc_command("repro", "x")[1:] == ["-m", "dvc", "repro", "x"]
    done = run_dvc("version")
    assert done.returncode == 0, done.stderr
    assert "DVC version" in done.stdout
