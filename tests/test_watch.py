"""Changes of raw images are noticed, and nothing else changes data/source.json."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cifarpipe.data import watch
from cifarpipe.data.folder import read_folder
from cifarpipe.data.names import is_ignored
from cifarpipe.data.watch import list_files, update_source
from cifarpipe.store.paths import SOURCE_FILE, SOURCE_SEEN
from tests.support.image_folders import make_images, pixels, save


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty workspace; return a folder of six images below the raw-data folder."""
    monkeypatch.setenv("CIFARPIPE_DATA", str(tmp_path / "raw"))
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    return make_images(tmp_path / "raw/animals")


def update() -> dict[str, Any]:
    """Watch the images, and return the content of data/source.json."""
    update_source("folder", "animals")
    content: dict[str, Any] = json.loads(SOURCE_FILE.read_text())
    return content


def identity() -> tuple[int, int]:
    """Return what changes whenever data/source.json is written."""
    status = SOURCE_FILE.stat()
    return status.st_ino, status.st_mtime_ns


def set_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_source_file_describes_the_folder(images: Path) -> None:
    content = update()
    assert content.keys() == {"source", "folder", "files", "fingerprint"}
    assert (content["source"], content["folder"], content["files"]) == ("folder", "animals", 6)
    assert len(content["fingerprint"]) == 64
    assert str(images) not in SOURCE_FILE.read_text()  # it may lie elsewhere on another machine


@pytest.mark.parametrize("source", ["cifar10", "synthetic"])
def test_other_sources_have_no_fingerprint(images: Path, source: str) -> None:
    update_source(source, None)
    assert json.loads(SOURCE_FILE.read_text()) == {"source": source}
    written = identity()
    update_source(source, None)
    assert identity() == written
    assert not SOURCE_SEEN.exists()


def test_changed_source_is_written(images: Path) -> None:
    folder = update()
    update_source("cifar10", None)
    assert json.loads(SOURCE_FILE.read_text()) == {"source": "cifar10"}
    assert update() == folder


def test_unchanged_images_leave_the_file(images: Path) -> None:
    update()
    written = identity()
    update()
    assert identity() == written


def add(images: Path) -> None:
    save(images / "train/cat/new.png", pixels(99))


def remove(images: Path) -> None:
    (images / "train/cat/0.png").unlink()


def rename(images: Path) -> None:
    (images / "train/cat/0.png").rename(images / "train/cat/new.png")


def move_to_other_class(images: Path) -> None:
    (images / "train/cat/0.png").rename(images / "train/dog/new.png")


def replace_by_equal_size(images: Path) -> None:
    path = images / "train/cat/0.png"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    set_time(path, 1_000_000)


def exchange(images: Path) -> None:
    one, other = images / "train/cat/0.png", images / "train/cat/1.png"
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    set_time(one, 1_000_000)
    set_time(other, 1_000_000)


def redirect_link(images: Path) -> None:
    link = images / "train/cat/link.png"
    link.unlink()
    link.symlink_to(images / "train/dog/1.png")


@pytest.mark.parametrize(
    "change",
    [add, remove, rename, move_to_other_class, replace_by_equal_size, exchange, redirect_link],
)
def test_changed_images_change_the_fingerprint(images: Path, change: Any) -> None:
    (images / "train/cat/link.png").symlink_to(images / "train/dog/0.png")
    set_time(images / "train/dog/1.png", 1_000_000)
    before = update()
    count = len(list(images.rglob("*.png")))
    assert before["files"] == count
    change(images)
    after = update()
    assert after["fingerprint"] != before["fingerprint"]
    assert after["files"] == count + {"add": 1, "remove": -1}.get(change.__name__, 0)


def test_reverted_change_restores_the_fingerprint(images: Path) -> None:
    before = update()
    add(images)
    assert update() != before
    (images / "train/cat/new.png").unlink()
    assert update() == before


def test_touched_image_leaves_the_file(images: Path) -> None:
    before = update()
    written = identity()
    set_time(images / "train/cat/0.png", 1_000_000)
    assert update() == before
    assert identity() == written


def test_only_changed_images_are_hashed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def digest(path: Path) -> str:
        hashed.append(path.relative_to(images).as_posix())
        return original(path)

    original = watch.file_digest
    monkeypatch.setattr(watch, "file_digest", digest)
    update()
    assert len(hashed) == 6
    hashed.clear()
    update()
    assert hashed == []
    set_time(images / "train/dog/1.png", 1_000_000)
    save(images / "test/cat/new.png", pixels(99))
    update()
    assert sorted(hashed) == ["test/cat/new.png", "train/dog/1.png"]


@pytest.mark.parametrize("content", ["", "[1]", '{"files": 1', "no json"])
def test_damaged_state_is_computed_again(images: Path, content: str) -> None:
    before = update()
    SOURCE_SEEN.write_text(content)
    assert update() == before
    SOURCE_FILE.write_text(content)
    assert update() == before


def test_missing_state_is_computed_again(images: Path) -> None:
    before = update()
    written = identity()
    SOURCE_SEEN.unlink()
    assert update() == before
    assert identity() == written


def test_missing_folder_keeps_recorded_fingerprint(images: Path) -> None:
    before = update()
    written = identity()
    images.rename(images.with_name("moved"))
    assert update() == before
    assert identity() == written


def test_missing_other_folder_has_no_fingerprint(images: Path) -> None:
    update()
    update_source("folder", "plants")
    assert json.loads(SOURCE_FILE.read_text()) == {"source": "folder", "folder": "plants"}


def test_equal_copy_has_equal_fingerprint(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = update()
    make_images(tmp_path / "other/animals")
    monkeypatch.setenv("CIFARPIPE_DATA", str(tmp_path / "other"))
    assert update() == before


def test_other_root_is_hashed_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of another folder may have equal names, sizes and times."""
    other = make_images(tmp_path / "other/animals")
    replace_by_equal_size(other)
    for path in (*images.rglob("*.png"), *other.rglob("*.png")):
        set_time(path, 1_000_000)
    before = update()
    monkeypatch.setenv("CIFARPIPE_DATA", str(tmp_path / "other"))
    assert update()["fingerprint"] != before["fingerprint"]


def test_hidden_files_are_ignored(images: Path) -> None:
    before = update()
    (images / "train/cat/.DS_Store").write_bytes(b"x")
    (images / "train/cat/Thumbs.db").write_bytes(b"x")
    save(images / ".cache/cat/1.png", pixels(1))
    save(images / "train/.ipynb_checkpoints/1.png", pixels(1))
    assert update() == before


@pytest.mark.parametrize(
    ("name", "ignored"),
    [(".DS_Store", True), (".git", True), ("Thumbs.db", True), ("a.png", False), ("a.", False)],
)
def test_ignored_names(name: str, ignored: bool) -> None:
    assert is_ignored(name) == ignored


def test_watched_files_are_those_read(images: Path) -> None:
    (images / "train/cat/._0.png").write_bytes(b"x")
    (images / "test/dog/Thumbs.db").write_bytes(b"x")
    raw = read_folder("animals")
    assert raw.train.files is not None
    assert raw.test.files is not None
    read = [f"train/{name}" for name in raw.train.files] + [f"test/{n}" for n in raw.test.files]
    assert sorted(name for name, _, _ in list_files(str(images))) == sorted(read)


def test_sizes_and_times_are_those_of_files(images: Path) -> None:
    set_time(images / "train/cat/0.png", 1_000_000)
    found = {name: (size, time) for name, size, time in list_files(str(images))}
    size = len((images / "train/cat/0.png").read_bytes())
    assert found["train/cat/0.png"] == (size, 1_000_000 * 10**9)


def test_unreadable_files_are_listed(images: Path) -> None:
    """The stage `prepare` reports them."""
    (images / "train/cat/dangling.png").symlink_to(images / "missing.png")
    os.mkfifo(images / "train/cat/pipe.png")  # reading it would block
    (images / "train/cat/loop").symlink_to("loop")
    assert update()["files"] == 6 + 3


def test_names_that_are_not_utf8_are_watched(images: Path) -> None:
    before = update()
    name = os.fsdecode(b"caf\xe9.png")
    (images / "train/cat" / name).write_bytes(b"x")
    assert update()["files"] == before["files"] + 1
