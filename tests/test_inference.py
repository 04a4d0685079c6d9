"""The forward pass over many images: order, completeness, and an unchanged network."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.networks.normalize import normalize

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


class Net(nn.Module):
    """A network whose output differs between training and evaluation: batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 7 * 7, 4)
        self.batches: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(batch))
        return self.head(self.dropout(self.layers(batch).flatten(1)))


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    model = Net()
    nn.init.normal_(model.layers[1].running_mean)
    return model


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (23, 16, 16, 3), generator=generator).to(torch.uint8)


def logits_of(model: nn.Module, images: torch.Tensor, batch_size: int, **more: Any) -> torch.Tensor:
    store = ImageStore(images.numpy(), torch.device("cpu"))
    return compute_logits(model, store, mean=MEAN, std=STD, batch_size=batch_size, **more)


def test_mirrored_equals_flipped_images(model: Net, images: torch.Tensor) -> None:
    flipped = images.numpy()[:, :, ::-1].copy()  # [N, H, W, 3]
    expected = logits_of(model, torch.from_numpy(flipped), 10)
    assert torch.equal(logits_of(model, images, 10, mirrored=True), expected)
    assert not torch.equal(logits_of(model, images, 10), expected)


@pytest.mark.parametrize("batch_size", [1, 7, 22, 23, 500])
def test_batch_size_does_not_change_logits(
    model: Net, images: torch.Tensor, batch_size: int
) -> None:
    logits = logits_of(model, images, batch_size)
    with torch.no_grad():
        expected = model.eval()(normalize(images, MEAN, STD))
    assert logits.shape == (23, 4)
    torch.testing.assert_close(logits, expected)


def test_last_batch_may_be_smaller(model: Net, images: torch.Tensor) -> None:
    logits_of(model, images, 10)
    assert model.batches == [10, 10, 3]


def test_logits_follow_the_order_of_images(model: Net, images: torch.Tensor) -> None:
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    shuffled = logits_of(model, images[order], 6)
    torch.testing.assert_close(shuffled, logits_of(model, images, 6)[order])
    assert len(shuffled.unique(dim=0)) == 23  # otherwise any order would pass


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_statistics_are_unchanged(
    model: Net, images: torch.Tensor, training: bool
) -> None:
    model.train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    logits_of(model, images, 10)
    assert all(module.training is training for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_mode_is_restored_after_an_exception(model: Net, images: torch.Tensor) -> None:
    model.train()
    model.head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits_of(model, images, 10)
    assert model.training
    assert model.dropout.training


def test_no_gradients_are_recorded(model: Net, images: torch.Tensor) -> None:
    logits = logits_of(model, images, 10)
    assert not logits.requires_grad
    assert logits.grad_fn is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bf16_logits_are_close_and_fp32(model: Net, images: torch.Tensor) -> None:
    exact, rounded = logits_of(model, images, 10), logits_of(model, images, 10, precision="bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.05)


def test_selected_images_are_computed_in_order(model: Net, images: torch.Tensor) -> None:
    which = np.array([5, 2, 17, 2])
    expected = logits_of(model, images, 10)[which]
    torch.testing.assert_close(logits_of(model, images, 3, which=which), expected)
