"""`make setup`, with a stand-in for Python: nothing is installed."""

import os
import subprocess
from pathlib import Path

from tests.support.study import ROOT

# `python -m venv .venv` makes an environment whose programs write down which one is active.
PYTHON = """#!/bin/sh
test "$1" = -c && exit {old}
test "$1" = --version && echo Python 3.9.2 && exit
mkdir -p .venv/bin
for name in pip uv cifarpipe; do
    printf '#!/bin/sh\\necho "$VIRTUAL_ENV" >> active\\n' > .venv/bin/$name
    chmod +x .venv/bin/$name
done
"""


def set_up(folder: Path, *, old: bool) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    python = folder / "python"
    python.write_text(PYTHON.format(old=int(old)))
    python.chmod(0o755)
    variables = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
    variables.pop("VIRTUAL_ENV", None)
    command = ["make", "--silent", "setup", "PYTHON=./python"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def test_set_up_in_a_folder_with_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "my own projects"
    done = set_up(folder, old=False)
    assert done.returncode == 0, done.stderr
    active = (folder / "active").read_text().splitlines()
    assert set(active) == {"", str(folder / ".venv")}
    assert (folder / ".venv/.ready").exists()


def test_old_python_is_refused(tmp_path: Path) -> None:
    done = set_up(tmp_path / "project", old=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11 or newer is needed; ./python is Python 3.9")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "project/.venv").exists()
