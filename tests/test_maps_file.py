"""Maps on disk come back as they were, or not at all."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.results.maps import load_maps, save_maps


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(20, 4, 4)).astype(np.float32) for _ in range(2))


def test_maps_come_back(tmp_path: Path, maps: tuple[np.ndarray, np.ndarray]) -> None:
    save_maps(tmp_path / "cams.npz", np.arange(20), *maps)
    for found, wanted in zip(load_maps(tmp_path / "cams.npz"), maps, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_every_bit_counts(tmp_path: Path, maps: tuple[np.ndarray, np.ndarray]) -> None:
    """Those that nothing is read from, as dates in the archive, may differ."""
    path = tmp_path / "cams.npz"
    save_maps(path, np.arange(20), *maps)
    whole = path.read_bytes()
    refused = 0
    for place in np.random.default_rng(1).integers(0, 8 * len(whole), 500):
        harmed = bytearray(whole)
        harmed[place // 8] ^= 1 << place % 8
        path.write_bytes(harmed)
        try:
            found = load_maps(path)
        except UserError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, maps)
    assert refused > 300


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_what_was_cut_is_refused(
    kept: int, tmp_path: Path, maps: tuple[np.ndarray, np.ndarray]
) -> None:
    path = tmp_path / "cams.npz"
    save_maps(path, np.arange(20), *maps)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cams\.npz is damaged"):
        load_maps(path)


def test_equal_maps_give_equal_bytes_at_any_time(
    tmp_path: Path, maps: tuple[np.ndarray, np.ndarray]
) -> None:
    for name in ("first", "again"):
        save_maps(tmp_path / f"{name}.npz", np.arange(20), *maps)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.npz") as file:
        assert {entry.date_time[0] for entry in file.infolist()} == {1980}  # not today
