"""Run the DVC of this environment, even if it is not activated."""

import os
import subprocess
import sys
from pathlib import Path


def dvc_command(*arguments: str) -> list[str]:
    """Return a command that runs DVC."""
    return [sys.executable, "-m", "dvc", *arguments]


def run_dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC; return its output, as text, and its exit code."""
    return subprocess.run(
        dvc_command(*arguments), env=environment(), capture_output=True, text=True, check=False
    )


def environment() -> dict[str, str]:
    """Return our variables, but `python`, which runs the stages, is that of this environment."""
    home = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != home:
        path = f"{home}{os.pathsep}{path}"
    return os.environ | {"PATH": path}
