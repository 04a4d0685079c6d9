"""Images on the device or streamed: the same batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cifarpipe.networks import images as store
from cifarpipe.networks.images import ImageStore, memory_map

CPU = torch.device("cpu")
EVERYTHING_FITS, NOTHING_FITS = 2**30, 0


@pytest.fixture(params=["array", "memory map"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    if request.param == "array":
        return images
    np.save(tmp_path / "images.npy", images)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize("limit", [EVERYTHING_FITS, NOTHING_FITS])
def test_batches_hold_what_was_picked_in_order(images: np.ndarray, limit: int) -> None:
    order = np.random.default_rng(1).permutation(50)
    picks = [order[:7], order[7:8], order[8:8], order[8:50], order[:3]]
    kept = ImageStore(images, CPU, limit=limit)
    assert len(kept) == 50
    assert (kept.resident is None) == (limit == NOTHING_FITS)
    for pick, batch in zip(picks, kept.batches(picks), strict=True):
        assert batch.dtype == torch.uint8
        assert np.array_equal(batch.numpy(), images[pick])


@pytest.mark.parametrize("limit", [EVERYTHING_FITS, NOTHING_FITS])
def test_no_picks_give_no_batches(images: np.ndarray, limit: int) -> None:
    assert list(ImageStore(images, CPU, limit=limit).batches([])) == []
    assert list(ImageStore(images[:0], CPU, limit=limit).batches([])) == []


def test_size_decides(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "RAM_LIMIT", images.nbytes)
    assert ImageStore(images, CPU).resident is not None
    monkeypatch.setattr(store, "RAM_LIMIT", images.nbytes - 1)
    assert ImageStore(images, CPU).resident is None


def test_batches_are_the_callers_own(images: np.ndarray) -> None:
    """What is done to a batch in place must not reach the images."""
    before = np.array(images)
    for limit in (EVERYTHING_FITS, NOTHING_FITS):
        kept = ImageStore(images, CPU, limit=limit)
        for batch in kept.batches([np.arange(50)]):
            batch.zero_()
        (again,) = kept.batches([np.arange(50)])
        assert np.array_equal(again.numpy(), before)


def test_a_reader_that_fails_is_heard(images: np.ndarray) -> None:
    streamed = ImageStore(images, CPU, limit=NOTHING_FITS)
    streamed.images = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        list(streamed.batches([np.arange(3)]))


def test_the_mapped_file_behind_a_part_of_an_array_is_found(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 4, 4, 3), np.uint8))
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    for part in (whole, whole[2:8], whole[::2][1:]):
        assert memory_map(part) is whole.base
    assert memory_map(np.zeros(3)) is None
