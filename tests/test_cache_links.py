"""How DVC links results to its cache: so that experiments beside each other lose nothing."""

import configparser
from pathlib import Path

import pytest
from dvc_objects.fs import generic, system
from dvc_objects.fs.local import LocalFileSystem

from tests.support.dag_setting import ROOT


def link_types() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    return config["cache"]["type"].strip('"').split(",")


def two_that_put_the_same_file_into_the_cache(folder: Path, link: str) -> Path:
    """Return the first one's file, after the second put its own, having seen none there."""
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


def test_links_that_are_used_keep_what_they_link(tmp_path: Path) -> None:
    assert link_types() == ["reflink", "symlink", "copy"]
    ours = two_that_put_the_same_file_into_the_cache(tmp_path, "symlink")
    assert ours.read_text() == "content"


def test_hard_links_do_not_and_are_not_used(tmp_path: Path) -> None:
    """When this fails DVC has learnt it, and hard links would do as well."""
    (tmp_path / "a").touch()
    try:
        system.reflink(str(tmp_path / "a"), str(tmp_path / "b"))
    except OSError:
        ours = two_that_put_the_same_file_into_the_cache(tmp_path, "hardlink")
        assert ours.read_text() == ""
    else:
        pytest.skip("this file system shares the content of files, so nothing is linked")
