"""Batches of an epoch: every image once, identical however the work is divided."""

import numpy as np
import pytest
import torch

from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.recipes import Augment
from cifarpipe.networks.images import ImageStore
from cifarpipe.training import batches as module
from cifarpipe.training.batches import AugmentedBatches, Batch
from cifarpipe.training.distributed import Share, World

CPU = torch.device("cpu")
COUNT = 103
IMAGE_BYTES = 32 * 32 * 3
WHOLE = Share(0, 2, 0.5)
ALL_KINDS = Augment.model_validate(
    {
        "crop": 4,
        "flip": "alternating",
        "randaugment": {"n": 1, "m": 9},
        "rotate": 10.0,
        "cutout": 8,
        "mixup": {"probability": 0.5, "alpha": 0.8},
        "cutmix": {"probability": 0.5, "alpha": 1.0},
    }
)


def make(
    recipe: Augment | None, world: World | None = None, *, limit: int = 2**30, seed: int = 0
) -> AugmentedBatches:
    """Return batches of images whose first pixel holds their label."""
    images = np.random.default_rng(9).integers(1, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    mean, std = torch.zeros(3), torch.ones(3)
    augmentation = Augmentation(recipe, mean=mean, std=std, image_size=32, classes=COUNT, seed=seed)
    return AugmentedBatches(
        ImageStore(images, CPU, limit=limit),
        np.arange(COUNT),
        augmentation,
        batch_size=16,
        seed=seed,
        world=world or World(),
    )


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def test_epoch_shows_every_image_once_in_new_order() -> None:
    batches = make(None)
    assert len(batches) == 7
    orders = []
    for epoch in (1, 2):
        found = list(batches.epoch(epoch))
        assert [len(batch.inputs) for batch in found] == [16] * 6 + [7]
        assert [batch.share.scale for batch in found] == [1 / 16] * 6 + [1 / 7]
        labels = torch.cat([batch.targets for batch in found])
        inputs = torch.cat([batch.inputs for batch in found])
        assert torch.equal((inputs[:, 0, 0, 0] * 255).round().long(), labels)
        assert torch.equal(labels.sort().values, torch.arange(COUNT))
        orders.append(labels)
    assert not torch.equal(*orders)


def test_epoch_does_not_depend_on_previous_epochs() -> None:
    """Needed to resume a run at any epoch."""
    batches = make(ALL_KINDS)
    list(batches.epoch(1))
    second = list(batches.epoch(2))
    assert equal(second, list(make(ALL_KINDS).epoch(2)))
    assert not equal(second, list(make(ALL_KINDS).epoch(1)))
    assert not equal(second, list(make(ALL_KINDS, seed=1).epoch(2)))


@pytest.mark.parametrize("at_once", [1, 16, 40, 1000])  # images
def test_streaming_and_chunk_size_change_nothing(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(make(ALL_KINDS).epoch(1))
    monkeypatch.setitem(module.AT_ONCE, "cpu", at_once * IMAGE_BYTES)
    assert equal(expected, list(make(ALL_KINDS, limit=0).epoch(1)))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_of_all_processes_make_each_batch(size: int) -> None:
    whole = list(make(ALL_KINDS).epoch(1))
    parts = [list(make(ALL_KINDS, World(rank, size)).epoch(1)) for rank in range(size)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.inputs for share in shares]), batch.inputs)
        assert torch.equal(torch.cat([share.targets for share in shares]), batch.targets)
        assert all(share.share.scale == size / len(batch.inputs) for share in shares)


def test_label_of_mixed_image_is_the_larger_share() -> None:
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([[0.4, 0.6], [0.9, 0.1]]), WHOLE)
    assert batch.labels.tolist() == [1, 0]
    plain = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([1, 1]), WHOLE)
    assert plain.labels.tolist() == [1, 1]
