"""DVC's links to its cache must be safe for concurrent experiments."""

import configparser
from pathlib import Path

import pytest
from dvc_objects.fs import generic, system
from dvc_objects.fs.local import LocalFileSystem

from tests.support.dag import ROOT


def link_types() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    return config["cache"]["type"].strip('"').split(",")


def cache_twice(folder: Path, link: str) -> Path:
    """Put the same file into the cache twice, the second time unaware of it; return the first."""
    disk = LocalFileSystem()
    ours, theirs, cached = (str(folder / name) for name in ("ours", "theirs", "cached"))
    for path in (ours, theirs):
        Path(path).write_text("content")
    generic.transfer(disk, ours, disk, cached, hardlink=link == "hardlink")
    if link != "hardlink":
        Path(ours).unlink()
        Path(ours).symlink_to(cached)
    generic.transfer(disk, theirs, disk, cached, hardlink=link == "hardlink")
    return Path(ours)


def test_configured_links_keep_their_content(tmp_path: Path) -> None:
    assert link_types() == ["reflink", "symlink", "copy"]
    ours = cache_twice(tmp_path, "symlink")
    assert ours.read_text() == "content"


def test_hard_links_lose_their_content(tmp_path: Path) -> None:
    """If this fails, DVC has fixed the problem, and hard links could be used, too."""
    (tmp_path / "a").touch()
    try:
        system.reflink(str(tmp_path / "a"), str(tmp_path / "b"))
    except OSError:
        ours = cache_twice(tmp_path, "hardlink")
        assert ours.read_text() == ""
    else:
        pytest.skip("this file system has copy-on-write copies, so nothing is linked")
