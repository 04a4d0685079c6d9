"""A finished study, copies of it to break, and whether what is left of one can be trusted."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.study import copy_study, environment, run

MODEL = "vit"
MODELS = {
    "vit": {"dim": 32, "depth": 2, "heads": 2, "mlp_dim": 32, "epochs": 6},
    "convmixer": {"dim": 16, "depth": 2, "epochs": 2},
}
CHANGES = {
    "data": {"train_size": 300, "val_size": 60, "test_size": 200},
    "misclassified": {"count": 12},
    "gradcam": {"removal_images": 6},
}
STAGES = ("prepare", *(f"{stage}@{MODEL}" for stage in ("train", "evaluate", "misclassified",
          "gradcam")), "report")  # fmt: skip
# What `train` writes after every epoch: of a run that was stopped, it holds the first ones.
GROWING = ("history.csv", "training.json")


@dataclass(frozen=True)
class Row:
    """One line of the table: what was tried, how often, and what came of it."""

    what: str
    times: int
    outcome: str
    wrong: int = 0
    """Outcomes that were wrong and yet accepted, or no clear refusal."""


@dataclass(frozen=True)
class Study:
    """A finished study."""

    folder: Path
    outs: dict[str, dict[str, str]]
    """Of each stage, the digest of each file it wrote."""
    lock: bytes
    """Its dvc.lock."""

    def copy(self, folder: Path) -> Path:
        """Make a copy, with its own cache, times of files kept."""
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.folder, folder, symlinks=True))

    def faults(self, folder: Path, stage: str, *, whole: bool) -> list[str]:
        """Say which of a stage's files are there and not what they should be.

        Args:
            folder: Of the copy.
            stage: Its name in DVC.
            whole: They must all be there, and nothing beside them.
        """
        found = []
        for path, digest in self.outs[stage].items():
            file = folder / path
            if not file.is_file():
                found += [f"{path} is missing"] if whole else []
            elif sha256(file) != digest and (whole or file.name not in GROWING):
                found.append(f"{path} is wrong")
        if whole:
            left = [*folder.glob("**/.*.partial*"), *folder.glob(".resume/*/*/*")]
            found += [f"{path} is left over" for path in left]
        return found


def make_study(folder: Path) -> Study:
    """Run a study of two small models to its end."""
    copy_study(folder, CHANGES, MODELS)
    run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    outs = {}
    for stage in STAGES:
        files = [file for out in lock[stage]["outs"] for file in files_of(folder / out["path"])]
        outs[stage] = {str(file.relative_to(folder)): sha256(file) for file in files}
    return Study(folder, outs, (folder / "dvc.lock").read_bytes())


def files_of(path: Path) -> Iterator[Path]:
    """Yield a file, or all files of a folder."""
    if path.is_dir():
        yield from sorted(each for each in path.rglob("*") if each.is_file())
    else:
        yield path


def sha256(path: Path) -> str:
    """Return a file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(stage: str) -> list[str]:
    """Return what DVC runs for a stage."""
    name, _, model = stage.partition("@")
    return [sys.executable, "-m", f"stages.{name}", *([model] if model else [])]


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command, cwd=folder, env=environment(OMP_NUM_THREADS="1"), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def remove(folder: Path, stage: str, study: Study) -> None:
    """Remove a stage's outputs, as DVC does before it runs."""
    for path in study.outs[stage]:
        own_copy(folder / path).unlink(missing_ok=True)
    if stage == "prepare":
        shutil.rmtree(folder / "data/prepared", ignore_errors=True)


def chance(seed: object) -> random.Random:
    """Return what draws the moments and places, the same each time."""
    return random.Random(str(seed))  # noqa: S311


def own_copy(path: Path) -> Path:
    """Make a file, which may be a link to DVC's cache, one that can be changed."""
    if path.exists():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return path


def damage(path: Path, rng: random.Random) -> str:
    """Flip a bit of a file, or cut it off."""
    content = bytearray(own_copy(path).read_bytes())
    if rng.random() < 0.5:
        place = rng.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        return "flip"
    path.write_bytes(content[: rng.randrange(len(content))])
    return "cut"


def clear_refusal(returncode: int, said: str) -> bool:
    """Say whether a command ended as it should where something outside is at fault."""
    return returncode == 2 and said.lstrip().startswith("error: ") and "Traceback" not in said


def without_write_rights(command: list[str]) -> list[str]:
    """Return how to run a command for which this folder is read-only, though we be root."""
    if os.geteuid():
        return command
    mount = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
