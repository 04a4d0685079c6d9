"""A finished study, copies of it to break, and checks of what a trial leaves behind."""

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
PER_MODEL = ("train", "evaluate", "misclassified", "gradcam", "figures")
STAGES = ("check", "prepare", *(f"{stage}@{MODEL}" for stage in PER_MODEL), "report")
LOCKS = ("data/dvc.lock", "dvc.lock")
# `train` writes these after every epoch: those of a stopped run hold its first epochs.
GROWING = ("history.csv", "training.json")


@dataclass(frozen=True)
class Row:
    """The result of a trial, a line of the table."""

    what: str
    times: int
    outcome: str
    wrong: int = 0
    """Wrong results that were accepted, and errors without a clear message."""


@dataclass(frozen=True)
class Study:
    """A finished study."""

    folder: Path
    outs: dict[str, dict[str, str]]
    """For each stage, the digest of each file that it wrote."""
    locks: dict[str, bytes]
    """The content of DVC's lock files."""

    def copy(self, folder: Path) -> Path:
        """Make a copy with a cache of its own; files keep their times."""
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.folder, folder, symlinks=True))

    def differences(self, folder: Path, stage: str, *, complete: bool) -> list[str]:
        """Return which of a stage's files are not as they should be, a line each.

        Args:
            folder: Of the copy.
            stage: Its name in DVC.
            complete: Whether all files must exist, and no temporary ones.
        """
        found = []
        for path, digest in self.outs[stage].items():
            file = folder / path
            if not file.is_file():
                found += [f"{path} is missing"] if complete else []
            elif sha256(file) != digest and (complete or file.name not in GROWING):
                found.append(f"{path} differs")
        if complete:
            left_over = [*folder.glob("**/.*.partial*"), *folder.glob(".resume/*/*/*")]
            found += [f"{path} is left over" for path in left_over]
        return found

    def all_differences(self, folder: Path) -> list[str]:
        """Return which files and lock files of a complete copy differ, a line each."""
        found = [
            f"{lock} differs"
            for lock, content in self.locks.items()
            if (folder / lock).read_bytes() != content
        ]
        for stage in STAGES:
            found += self.differences(folder, stage, complete=True)
        return found


def make_study(folder: Path) -> Study:
    """Run a study of two small models."""
    copy_study(folder, CHANGES, MODELS)
    run(folder, "dvc", "repro", OMP_NUM_THREADS="1")
    locks = {lock: (folder / lock).read_bytes() for lock in LOCKS}
    check, others = (yaml.safe_load(content)["stages"] for content in locks.values())
    recorded = check | others  # both files give paths from the root
    outs = {}
    for stage in STAGES:
        paths = [folder / out["path"] for out in recorded[stage]["outs"]]
        files = [file for path in paths for file in files_of(path)]
        outs[stage] = {str(file.relative_to(folder)): sha256(file) for file in files}
    return Study(folder, outs, locks)


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
    """Return the command of a stage, as in dvc.yaml."""
    name, _, model = stage.partition("@")
    return [sys.executable, "-m", f"stages.{name}", *([model] if model else [])]


def start(folder: Path, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command, cwd=folder, env=environment(OMP_NUM_THREADS="1"), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def remove_outputs(folder: Path, stage: str, study: Study) -> None:
    """Remove a stage's outputs, as DVC does before it runs the stage."""
    for path in study.outs[stage]:
        unlinked(folder / path).unlink(missing_ok=True)
    if stage == "prepare":
        shutil.rmtree(folder / "data/prepared", ignore_errors=True)


def seeded(key: object) -> random.Random:
    """Return a random generator that is the same for the same key."""
    return random.Random(str(key))  # noqa: S311


def unlinked(path: Path) -> Path:
    """Replace a file, which may be a link to DVC's cache, by a copy that can be changed."""
    if path.exists():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return path


def damage(path: Path, rng: random.Random) -> str:
    """Flip a bit of a file, or truncate it; return which."""
    content = bytearray(unlinked(path).read_bytes())
    if rng.random() < 0.5:
        place = rng.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        return "flip"
    path.write_bytes(content[: rng.randrange(len(content))])
    return "truncation"


def is_clear_error(returncode: int, stderr: str) -> bool:
    """Return whether a command ended as it should after an error of the user or the machine."""
    return returncode == 2 and stderr.lstrip().startswith("error: ") and "Traceback" not in stderr


def in_read_only_folder(command: list[str]) -> list[str]:
    """Return a command that runs another one with a read-only working folder, even as root."""
    if os.geteuid():
        return command
    mount = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
