"""Changes between two runs of a study: raw images, removed models, code edited after a kill."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.study import (
    clone_of,
    commit,
    copy_of,
    copy_project,
    environment,
    replace_in,
    shared_study,
    small_params,
    stages_that_ran,
    succeed,
)

pytestmark = pytest.mark.dvc


def write_image(path: Path, shade: int) -> None:
    """Write 32 × 32 pixels of noise whose PNG has the same size for every `shade`."""
    rng = np.random.default_rng(shade)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


@pytest.fixture(scope="module")
def folder_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of images in a folder, pushed to a remote; the raw images are in `raw` next to it."""
    home = tmp_path_factory.mktemp("folder")
    for half, count in (("train", 24), ("test", 8)):
        for number, name in enumerate(("ant", "bee")):
            for image in range(count):
                write_image(home / "raw" / half / name / f"{image}.png", 100 * number + image)
    params = small_params()
    params["data"] = {
        "source": "folder", "folder": str(home / "raw"), "val_size": 12,
        "train_size": None, "test_size": None,
    }  # fmt: skip
    params["models"] = {"convmixer": params["models"]["convmixer"] | {"epochs": 1}}
    params["misclassified"]["count"] = 4
    study = home / "study"
    copy_project(study, params)
    succeed(study, "dvc", "repro")
    commit(study, "A study")
    return study


def edit_raw(study: Path, change: str) -> None:
    images = study.parent / "raw/train/ant"
    match change:
        case "added":
            write_image(images / "new.png", 777)
        case "removed":
            (images / "3.png").unlink()
        case "replaced":
            size = (images / "5.png").stat().st_size
            write_image(images / "5.png", 778)
            assert (images / "5.png").stat().st_size == size


def test_clone_without_raw_images_runs_nothing(folder_study: Path, tmp_path: Path) -> None:
    succeed(folder_study, "dvc", "remote", "add", "-f", "-d", "--local", "s", str(tmp_path / "s"))
    succeed(folder_study, "dvc", "push", "-q")
    clone = clone_of(folder_study, tmp_path / "clone")
    replace_in(clone / "params.yaml", str(folder_study.parent / "raw"), "elsewhere/raw")
    replace_in(clone / "data/source.json", str(folder_study.parent / "raw"), "elsewhere/raw")
    succeed(clone, "git", "checkout", "-q", ".")
    succeed(clone, "dvc", "remote", "add", "-d", "--local", "s", str(tmp_path / "s"))
    succeed(clone, "dvc", "pull", "-q")
    hidden = folder_study.parent / "hidden"
    (folder_study.parent / "raw").rename(hidden)
    try:
        assert not stages_that_ran(succeed(clone, "dvc", "repro"))
        assert succeed(clone, "git", "status", "--porcelain") == ""
        assert succeed(clone, "cifarpipe", "current") == "dvc.lock is up to date.\n"
    finally:
        hidden.rename(folder_study.parent / "raw")


@pytest.mark.parametrize("change", ["added", "removed", "replaced"])
def test_changed_raw_image_is_prepared_and_trained(folder_study: Path, change: str) -> None:
    edit_raw(folder_study, change)
    repro = ("dvc", "repro", "train@convmixer")
    assert stages_that_ran(succeed(folder_study, *repro)) == {"prepare", "train@convmixer"}
    assert not stages_that_ran(succeed(folder_study, *repro))


@pytest.fixture
def study(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return copy_of(shared_study(tmp_path_factory), tmp_path / "study")


def test_removed_model_leaves_a_clone_up_to_date(study: Path, tmp_path: Path) -> None:
    params = yaml.safe_load((study / "params.yaml").read_text())
    del params["models"]["vit"]
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    output = succeed(study, "dvc", "repro")
    assert stages_that_ran(output) == {"report"}
    assert "`cifarpipe prune` removes them" in output
    assert "vit" not in (study / "reports/curves.csv").read_text()
    commit(study, "Without vit")
    succeed(study, "dvc", "remote", "add", "-d", "--local", "s", str(tmp_path / "s"))
    succeed(study, "dvc", "push", "-q")
    clone = clone_of(study, tmp_path / "clone")
    succeed(clone, "dvc", "remote", "add", "-d", "--local", "s", str(tmp_path / "s"))
    succeed(clone, "dvc", "pull", "-q")
    assert succeed(clone, "dvc", "status").split() == ["data/dvc.yaml:check:", "always", "changed"]
    assert not stages_that_ran(succeed(clone, "dvc", "repro"))

    output = succeed(study, "cifarpipe", "prune", "--yes")
    assert "artifacts/vit/" in output
    assert not (study / "reports/models/vit").exists()
    assert (study / "reports/models/convmixer").exists()
    assert stages_that_ran(succeed(study, "dvc", "repro")) == {"report"}


def kill_training(study: Path) -> None:
    """Start a longer training of the ViT and kill it after an epoch was saved."""
    replace_in(study / "params.yaml", "epochs: 2", "epochs: 400")
    command = ["dvc", "repro", "-s", "train@vit"]
    running = subprocess.Popen(
        command, cwd=study, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not list(study.glob(".resume/vit/*/first")):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    replace_in(study / "params.yaml", "epochs: 400", "epochs: 2")
    shutil.rmtree(study / ".dvc/tmp", ignore_errors=True)


def resumed(study: Path) -> bool:
    """Start the killed training again, and return whether it resumes."""
    replace_in(study / "params.yaml", "epochs: 2", "epochs: 400")
    running = subprocess.Popen(
        ["python", "-m", "stages.train", "vit"],
        cwd=study, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    line = running.stdout.readline()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    replace_in(study / "params.yaml", "epochs: 400", "epochs: 2")
    assert line.startswith("vit: "), line
    return "resuming after epoch" in line


def test_killed_training_resumes_unless_its_code_changed(study: Path) -> None:
    kill_training(study)
    for file in ("report/pages.py", "config/schema.py", "models/convmixer.py", "models/build.py"):
        replace_in(study / "cifarpipe" / file, '"""', '"""Edited. ')
    assert resumed(study)
    replace_in(study / "cifarpipe/training/loop.py", '"""', '"""Edited. ')
    assert not resumed(study)


def run_with_depth_1(study: Path) -> set[str]:
    """Train a ViT of another depth, and return the stages that ran."""
    replace_in(study / "params.yaml", "depth: 2", "depth: 1")
    return stages_that_ran(succeed(study, "dvc", "repro", "train@vit"))


def test_shared_cache_folder_shares_all_runs(study: Path, tmp_path: Path) -> None:
    """A clone takes from it even what another clone computed and never committed."""
    shared = ("dvc", "cache", "dir", "--local", str(tmp_path / "shared"))
    (study / ".dvc/cache").rename(tmp_path / "shared")
    succeed(study, *shared)
    succeed(study, "dvc", "checkout", "-q")
    assert run_with_depth_1(study) == {"train@vit"}
    clone = clone_of(study, tmp_path / "clone")
    succeed(clone, *shared)
    succeed(clone, "dvc", "checkout", "-q")
    assert not run_with_depth_1(clone)


def test_pushed_run_cache_lacks_files_stored_in_git(study: Path, tmp_path: Path) -> None:
    """So another clone computes an uncommitted run again, as docs/sharing.md says."""
    succeed(study, "dvc", "remote", "add", "-d", "--local", "s", str(tmp_path / "s"))
    run_with_depth_1(study)
    succeed(study, "dvc", "push", "-q", "--run-cache")
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    digests = {out["path"]: out["md5"] for out in lock["stages"]["train@vit"]["outs"]}
    stored = {
        path: (tmp_path / "s/files/md5" / digest[:2] / digest[2:]).exists()
        for path, digest in digests.items()
    }
    assert list((tmp_path / "s/runs").glob("*/*/*"))
    assert [path for path, there in stored.items() if there] == ["artifacts/vit/model.safetensors"]
