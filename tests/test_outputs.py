"""Outputs are either complete or absent."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from cifarpipe.config.errors import UserError
from cifarpipe.figures.layout import save_figure
from cifarpipe.networks.checkpoint import save_model
from cifarpipe.results.maps import Explanations, save_explanations
from cifarpipe.store.outputs import (
    atomic_path,
    file_digest,
    short_digest,
    write_csv,
    write_json,
    write_text,
)
from tests.support.origins import make_origin


class Interrupted(BaseException):
    """Stands for anything that ends a block: an error, an interrupt."""


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("old", [None, "old"])
def test_file_replaces_old_one(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "result.txt"
    if old:
        path.write_text(old)
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert path.exists() == bool(old)  # until the block ends
        assert partial.parent == tmp_path  # a rename can't cross file systems
        assert partial.suffix == ".txt"  # writers choose the format by it
    assert contents(tmp_path) == {"result.txt": "new"}


@pytest.mark.parametrize("old", [False, True])
def test_folder_replaces_old_one_completely(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "result"
    if old:
        (path / "inner").mkdir(parents=True)
        (path / "inner/left.txt").write_text("old")
    with atomic_path(path) as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub/a.txt").write_text("new")
        assert (path / "inner/left.txt").exists() == old
    assert contents(tmp_path) == {"result": "", "result/sub": "", "result/sub/a.txt": "new"}


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [Interrupted, ValueError, KeyboardInterrupt])
def test_failed_block_leaves_old_file(
    tmp_path: Path, old: str | None, error: type[BaseException]
) -> None:
    path = tmp_path / "result.txt"
    if old:
        path.write_text(old)

    def block() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        block()
    assert contents(tmp_path) == ({"result.txt": old} if old else {})


@pytest.mark.parametrize("old", [False, True])
def test_failed_block_leaves_old_folder(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "result"
    if old:
        path.mkdir()
        (path / "a.txt").write_text("old")
    before = contents(tmp_path)

    def block() -> None:
        with atomic_path(path) as partial:
            partial.mkdir()
            (partial / "a.txt").write_text("half")
            raise Interrupted

    with pytest.raises(Interrupted):
        block()
    assert contents(tmp_path) == before


def test_block_without_output_fails(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert contents(tmp_path) == {"result.txt": "old"}


def test_files_of_killed_run_are_removed_first(tmp_path: Path) -> None:
    left = tmp_path / f".result.{os.getpid()}.partial"
    left.mkdir()
    (left / "stale.txt").write_text("stale")
    with atomic_path(tmp_path / "result") as partial:
        assert partial == left
        partial.mkdir()
        (partial / "a.txt").write_text("new")
    assert contents(tmp_path) == {"result": "", "result/a.txt": "new"}


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a/b/c.txt", "x")
    assert (tmp_path / "a/b/c.txt").read_text() == "x"


def test_link_to_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    """DVC may link its outputs from the cache, whose content must never change."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "a.txt").write_text("cached")
    (tmp_path / "result").symlink_to(cache)
    with atomic_path(tmp_path / "result") as partial:
        partial.mkdir()
        (partial / "a.txt").write_text("new")
    assert (cache / "a.txt").read_text() == "cached"
    assert not (tmp_path / "result").is_symlink()
    assert (tmp_path / "result/a.txt").read_text() == "new"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_link_to_file_is_replaced_not_followed(tmp_path: Path, link: object) -> None:
    cached = tmp_path / "cached.txt"
    cached.write_text("cached")
    assert callable(link)
    link(cached, tmp_path / "result.txt")
    write_text(tmp_path / "result.txt", "new")
    assert cached.read_text() == "cached"
    assert (tmp_path / "result.txt").read_text() == "new"


def test_text_is_utf8_with_unchanged_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "×\n\r\nä")
    assert (tmp_path / "a.txt").read_bytes() == "×\n\r\nä".encode()


def test_json_is_read_back(tmp_path: Path) -> None:
    content = {"name": "dépôt ×", "values": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "dépôt ×" in text  # not escaped
    assert text.endswith("}\n")
    assert "\n  " in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_nan_and_infinity(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": [value]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_csv_has_unix_line_ends_without_row_labels(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a", 'b,"c"'], "loss": [1 / 3, float("nan")]}, index=[5, 6])
    write_csv(tmp_path / "a.csv", table, float_format="%.3g")
    assert (tmp_path / "a.csv").read_bytes() == b'name,loss\na,0.333\n"b,""c""",\n'
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "a.csv"), table.reset_index(drop=True), rtol=1e-2
    )


def test_next_write_removes_files_of_killed_process(tmp_path: Path) -> None:
    (tmp_path / ".a.1234.partial.csv").write_text("half")
    (tmp_path / ".b.1234.partial.csv").write_text("half, of another file")
    with atomic_path(tmp_path / "a.csv") as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", ".b.1234.partial.csv"}


@pytest.mark.parametrize("what", ["text", "table", "arrays", "model", "figure"])
def test_full_disk_leaves_old_file(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("out.npz" if what == "arrays" else "out.png")
    path.write_text("old")
    maps = np.ones((99, 9, 9), np.float32)
    writers = {
        "text": lambda: write_text(path, "x" * 100_000),
        "table": lambda: write_csv(path, pd.DataFrame({"a": range(50_000)})),
        "arrays": lambda: save_explanations(
            path, Explanations("gradcam", np.arange(99), maps, maps, True)
        ),
        "model": lambda: save_model(path, {"w": torch.ones(99_999)}, make_origin("vit", ["a"])),
        "figure": lambda: save_figure(Figure(), path),
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"out.... can't be written: .*"):
            writers[what]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == {path.name: "old"}


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"can't be written: (Not a directory|File exists)"):
        write_text(tmp_path / "file/out.txt", "text")


def test_digests_are_sha256(tmp_path: Path) -> None:
    """The example of FIPS 180-2, appendix B.1."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert short_digest(path) == "sha256:ba7816bf8f01cfea"
