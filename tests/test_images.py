"""Images of a split, resident on the device or streamed: the same batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cifarpipe.networks import images as module
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
def test_batches_hold_the_picked_images(images: np.ndarray, limit: int) -> None:
    order = np.random.default_rng(1).permutation(50)
    picks = [order[:7], order[7:8], order[8:8], order[8:50], order[:3]]
    store = ImageStore(images, CPU, limit=limit)
    assert len(store) == 50
    assert (store.resident is None) == (limit == NOTHING_FITS)
    for pick, batch in zip(picks, store.batches(picks), strict=True):
        assert batch.dtype == torch.uint8
        assert np.array_equal(batch.numpy(), images[pick])


@pytest.mark.parametrize("limit", [EVERYTHING_FITS, NOTHING_FITS])
def test_no_picks_give_no_batches(images: np.ndarray, limit: int) -> None:
    assert list(ImageStore(images, CPU, limit=limit).batches([])) == []
    assert list(ImageStore(images[:0], CPU, limit=limit).batches([])) == []


def test_size_decides_where_images_are_kept(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RAM_LIMIT", images.nbytes)
    assert ImageStore(images, CPU).resident is not None
    monkeypatch.setattr(module, "RAM_LIMIT", images.nbytes - 1)
    assert ImageStore(images, CPU).resident is None


def test_changed_batch_leaves_images_unchanged(images: np.ndarray) -> None:
    before = np.array(images)
    for limit in (EVERYTHING_FITS, NOTHING_FITS):
        store = ImageStore(images, CPU, limit=limit)
        for batch in store.batches([np.arange(50)]):
            batch.zero_()
        (again,) = store.batches([np.arange(50)])
        assert np.array_equal(again.numpy(), before)


def test_error_of_the_reading_thread_is_raised(images: np.ndarray) -> None:
    streamed = ImageStore(images, CPU, limit=NOTHING_FITS)
    streamed.images = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        list(streamed.batches([np.arange(3)]))


def test_memory_map_of_a_slice_is_found(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 4, 4, 3), np.uint8))
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    for part in (whole, whole[2:8], whole[::2][1:]):
        assert memory_map(part) is whole.base
    assert memory_map(np.zeros(3)) is None


def test_half_of_the_free_memory_of_a_gpu_holds_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1001, 4000))
    assert module.room(torch.device("cuda", 0)) == 500
    assert module.room(torch.device("cpu")) == 2**30
