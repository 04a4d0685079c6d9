"""Folders of images that are refused, and the messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.data.folder import read_folder
from tests.support.image_folders import (
    DAMAGES,
    Damage,
    empty_class,
    make_images,
    not_square,
    pixels,
    save,
    text_file,
    two_sizes,
)

ROOT = Path(__file__).parents[1]
damaged = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_images(tmp_path / "pictures")


def refused(root: Path) -> str:
    with pytest.raises(UserError) as refusal:
        read_folder(str(root))
    return str(refusal.value)


@damaged
def test_invalid_folder_is_refused(pictures: Path, damage: Damage) -> None:
    expected = damage(pictures)
    message = refused(pictures)
    for part in expected:
        assert part in message


def test_all_errors_are_reported_at_once(pictures: Path) -> None:
    text_file(pictures)
    two_sizes(pictures)
    not_square(pictures)
    empty_class(pictures)
    message = refused(pictures)
    assert "can't be used (5 problems):" in message
    assert message.count("\n  - ") == 5
    assert "… and" not in message


def test_at_most_ten_errors_are_listed(pictures: Path) -> None:
    for number in range(10):
        (pictures / f"train/cat/{number}.jpg").write_text("not an image")
    ten = refused(pictures)
    assert ten.count("\n  - ") == 10
    assert "… and" not in ten
    for number in range(3):
        (pictures / f"test/dog/{number}.jpg").write_text("not an image")
    message = refused(pictures)
    assert "(13 problems):" in message
    assert message.count("\n  - ") == 10
    assert "\n  … and 3 more\n" in message


def write_params(folder: Path, pictures: Path) -> None:
    content = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    content["data"] = {
        "source": "folder",
        "folder": str(pictures),
        "val_size": 2,
        "train_size": None,
        "test_size": None,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture
def workspace(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a params.yaml for the images, and return it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    write_params(folder, pictures)
    monkeypatch.chdir(folder)
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.thorough
@damaged
def test_stage_refuses_invalid_folder_and_writes_nothing(
    pictures: Path,
    workspace: Path,
    damage: Damage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cifarpipe.config.command import run
    from stages.prepare import main

    expected = damage(pictures)
    monkeypatch.setattr(sys, "argv", ["prepare"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    for part in expected:
        assert part in message
    assert files_in(workspace) == ["params.yaml"]


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "stages.prepare"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_command_refuses_invalid_folder_with_code_2(pictures: Path, workspace: Path) -> None:
    expected = [*text_file(pictures)[1:], *two_sizes(pictures)[1:]]
    done = command(workspace)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    for part in expected:
        assert part in done.stderr
    assert files_in(workspace) == ["params.yaml"]


def test_command_accepts_any_class_name(pictures: Path, workspace: Path) -> None:
    for name in ("<img src=x onerror=alert(1)>", "$a", "日本"):
        for half in ("train", "test"):
            save(pictures / half / name / "1.png", pixels(40))
    done = command(workspace)
    assert done.returncode == 0, done.stderr
    assert "folder: 5 classes, 5 train, 2 val, 5 test" in done.stdout
    assert not [path for path in files_in(workspace) if ".partial" in path]
    assert load_params(workspace / "params.yaml").data.folder == str(pictures)
    assert "data/prepared/dataset.json" in files_in(workspace)
