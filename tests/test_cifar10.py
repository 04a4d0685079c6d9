"""CIFAR-10 from a small archive in the real format; nothing is downloaded."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from http.client import BadStatusLine
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

import cifarpipe.data.cifar10 as module
from cifarpipe.config.errors import UserError
from cifarpipe.data.cifar10 import read_cifar10

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
COUNT = 4  # images of each batch


class _Python2Pickler(pickle._Pickler):
    """Write pickles as Python 2 did: byte strings, and NumPy by its old module name."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def _save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = _save_bytes


def pickled(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, 2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    return {
        "batch_label": f"batch {number}".encode(),
        "labels": rng.integers(0, 10, COUNT).tolist(),
        "data": rng.integers(0, 256, (COUNT, 3 * 32 * 32), dtype=np.uint8),
        "filenames": [f"{number}_{i}.png".encode() for i in range(COUNT)],
    }


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def packed(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty raw-data folder; downloads fail."""
    root = tmp_path / "raw"
    monkeypatch.setenv("CIFARPIPE_DATA", str(root))

    def no_network(*args: object) -> None:
        raise AssertionError("nothing may be downloaded in tests")

    monkeypatch.setattr(module, "download_url", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    return root


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return a small archive whose checksums torchvision accepts."""
    files = {name: pickled(batch(number)) for number, name in enumerate(BATCHES)}
    files["batches.meta"] = pickled(
        {"num_cases_per_batch": COUNT, "label_names": [name.encode() for name in NAMES]}
    )
    content = packed(files)
    sums = [[name, md5(files[name])] for name in BATCHES]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(content))
    return content


def put(root: Path, content: bytes) -> Path:
    root.mkdir(exist_ok=True)
    path = root / CIFAR10.filename
    path.write_bytes(content)
    return path


def test_archive_is_read_correctly(root: Path, archive: bytes) -> None:
    put(root, archive)
    raw = read_cifar10()
    assert raw.classes == NAMES
    for split, numbers in ((raw.train, range(5)), (raw.test, [5])):
        count = COUNT * len(numbers)
        assert split.images.shape == (count, 32, 32, 3)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == [label for n in numbers for label in batch(n)["labels"]]
        assert split.files is None
        assert split.masks is None
        rows = np.concatenate([batch(n)["data"] for n in numbers])
        for image, row in zip(split.images, rows, strict=True):
            # The format: 1024 values of red, of green and of blue, each row by row.
            for channel, y, x in ((0, 0, 0), (1, 0, 5), (2, 31, 31), (0, 7, 30), (1, 20, 3)):
                assert image[y, x, channel] == row[1024 * channel + 32 * y + x]


def test_archive_is_unpacked_once(root: Path, archive: bytes) -> None:
    path = put(root, archive)
    first = read_cifar10()
    path.unlink()
    assert read_cifar10().fingerprint() == first.fingerprint()


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_damaged_unpacked_file_is_unpacked_again(
    root: Path, archive: bytes, name: str, how: str
) -> None:
    put(root, archive)
    first = read_cifar10()
    file = root / CIFAR10.base_folder / name
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    assert read_cifar10().fingerprint() == first.fingerprint()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_wrong_archive_is_refused(root: Path, archive: bytes, content: bytes) -> None:
    path = put(root, content)
    with pytest.raises(UserError) as refused:
        read_cifar10()
    message = str(refused.value)
    assert f"{path} has a wrong checksum" in message
    assert CIFAR10.tgz_md5 in message
    assert "Delete it to download it again, or replace it by the correct file" in message
    assert [file.name for file in root.iterdir()] == [CIFAR10.filename]
    assert path.read_bytes() == content


def test_truncated_archive_is_refused(root: Path, archive: bytes) -> None:
    put(root, archive[:-100])
    with pytest.raises(UserError, match="wrong checksum: it is incomplete, or not the"):
        read_cifar10()


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("where", ["archive", "unpacked"])
def test_file_with_wrong_checksum_is_never_unpickled(
    root: Path, archive: bytes, tmp_path: Path, where: str
) -> None:
    trace = tmp_path / "trace"
    trap = pickle.dumps({"data": _Trap(trace), "labels": [], "label_names": []}, 2)
    names = [*BATCHES, "batches.meta"]
    if where == "archive":
        put(root, packed(dict.fromkeys(names, trap)))
        with pytest.raises(UserError, match="wrong checksum"):
            read_cifar10()
    else:
        put(root, archive)
        (root / CIFAR10.base_folder).mkdir()
        for name in names:
            (root / CIFAR10.base_folder / name).write_bytes(trap)
        assert len(read_cifar10().train.labels) == 5 * COUNT
    assert not trace.exists()
    pickle.loads(trap)  # check that unpickling it makes the folder
    assert trace.exists()


def test_missing_archive_is_downloaded_once(
    root: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = []

    def deliver(url: str, folder: str, name: str, checksum: str) -> None:
        downloads.append((url, checksum))
        (Path(folder) / name).write_bytes(archive)

    monkeypatch.setattr(module, "download_url", deliver)
    first = read_cifar10()
    assert read_cifar10().fingerprint() == first.fingerprint()
    assert downloads == [(CIFAR10.url, CIFAR10.tgz_md5)]
    assert sorted(path.name for path in root.iterdir()) == [
        CIFAR10.base_folder, CIFAR10.filename,
    ]  # fmt: skip
    assert (root / CIFAR10.filename).read_bytes() == archive


@pytest.mark.parametrize(
    "error",
    [
        URLError("Name or service not known"),
        TimeoutError("timed out"),
        BadStatusLine("invalid reply of a proxy"),
        RuntimeError(
            "File not found or corrupted."
        ),  # torchvision raises this for a wrong checksum
    ],
)
def test_failed_download_says_where_to_put_archive(
    root: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(url: str, folder: str, name: str, checksum: str) -> None:
        (Path(folder) / name).write_bytes(archive[:50])
        raise error

    monkeypatch.setattr(module, "download_url", fail)
    with pytest.raises(UserError) as refused:
        read_cifar10()
    message = str(refused.value)
    assert f"CIFAR-10 can't be downloaded: {error}" in message
    assert (
        f"copy {CIFAR10.filename} (MD5 {CIFAR10.tgz_md5}) to {root / CIFAR10.filename}" in message
    )
    assert "set $CIFARPIPE_DATA to use another folder" in message
    assert "make demo" in message
    assert list(root.rglob("*")) == []


def test_interrupted_download_leaves_no_file(
    root: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(url: str, folder: str, name: str, checksum: str) -> None:
        (Path(folder) / name).write_bytes(archive[:50])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "download_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_cifar10()
    assert list(root.rglob("*")) == []
