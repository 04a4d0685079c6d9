"""A full disk: the stage `prepare` ends with a message, and leaves nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.image_folders import pixels, save

ROOT = Path(__file__).parents[1]
# In a mount namespace of its own, so that nothing stays mounted.
SMALL = "mount -t tmpfs -o size=512k tmpfs data && {command}; code=$?; ls -A data; exit $code"


def with_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose folder `data` is a disk of 512 KiB; then list what is there."""
    (folder / "data").mkdir()
    script = SMALL.format(command=" ".join(command))
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("image_size", [None, 64])
def test_prepare_says_that_the_disk_is_full(image_size: int | None, tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    if not shutil.which("unshare") or with_small_disk(tmp_path / "probe", "true").returncode:
        pytest.skip("needs the right to mount")
    side = image_size or 128
    for number in range(40):
        for half in ("train", "test"):
            save(tmp_path / f"raw/{half}/cat/{number}.png", pixels(number, side, side))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    content = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    content["data"] = {
        "source": "folder", "folder": str(tmp_path / "raw"), "val_size": 2, "train_size": None,
        "test_size": None,
    } | ({"image_size": image_size} if image_size else {})  # fmt: skip
    (workspace / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    done = with_small_disk(workspace, sys.executable, "-m", "stages.prepare")
    assert done.returncode == 2, done.stderr
    assert "data/prepared can't be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == []  # nothing in data/
