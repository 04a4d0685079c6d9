"""All augmentations together: order, chunks, and what is left out when nothing is asked for."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cifarpipe.augment.pipeline import Augmentation, check_strengths
from cifarpipe.augment.transform import EpochOrder
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Augment
from cifarpipe.networks.normalize import normalize

MEAN = torch.tensor([0.4914, 0.4822, 0.4465])
STD = torch.tensor([0.2470, 0.2435, 0.2616])
EVERYTHING = {
    "crop": 4,
    "resized_crop": {"scale": [0.5, 1.0], "ratio": [0.75, 1.333]},
    "flip": "random",
    "randaugment": {"n": 2, "m": 9, "omit": []},
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "rotate": 15.0,
    "erasing": {"probability": 0.5, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]},
    "cutout": 8,
    "mixup": {"probability": 0.4, "alpha": 0.8},
    "cutmix": {"probability": 0.4, "alpha": 1.0},
}
ONE_BY_ONE = [
    {name: value} for name, value in EVERYTHING.items()
] + [{"flip": "alternating"}, EVERYTHING]  # fmt: skip


def augmentation(nothing: Augment, **wanted: object) -> Augmentation:
    recipe = Augment.model_validate(nothing.model_dump() | wanted)
    return Augmentation(recipe, mean=MEAN, std=STD, image_size=32, classes=10, seed=0)


def applied(
    what: Augmentation, images: Tensor, *, seed: int = 0, chunk: int = 64, batch_size: int = 16
) -> tuple[Tensor, Tensor]:
    """Augment `[N, 32, 32, 3]`, so many at a time."""
    labels = torch.arange(len(images)) % 10
    epoch = EpochOrder(1, np.arange(len(images)))
    drawn = what.draw(np.random.default_rng(seed), epoch, batch_size)
    parts = [
        what.apply(images[some], labels[some], drawn[some])
        for some in (slice(start, start + chunk) for start in range(0, len(images), chunk))
    ]
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


@pytest.fixture
def images(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("wanted", ONE_BY_ONE, ids=lambda wanted: ",".join(wanted))
def test_how_many_are_computed_at_a_time_changes_nothing(
    wanted: dict[str, object], images: Tensor, no_augment: Augment
) -> None:
    what = augmentation(no_augment, **wanted)
    before = images.clone()
    inputs, targets = applied(what, images)
    assert inputs.shape == (64, 3, 32, 32)
    assert inputs.dtype == torch.float32
    for chunk in (16, 32):
        again = applied(what, images, chunk=chunk)
        assert torch.equal(inputs, again[0])
        assert torch.equal(targets, again[1])
    assert torch.equal(images, before)  # the stored images are never written to
    assert not torch.equal(inputs, normalize(images, MEAN, STD))
    if wanted != {"flip": "alternating"}:
        assert not torch.equal(inputs, applied(what, images, seed=1)[0])


def test_nothing_asked_for_is_plain_normalisation(images: Tensor, no_augment: Augment) -> None:
    inputs, targets = applied(augmentation(no_augment), images)
    assert torch.equal(inputs, normalize(images, MEAN, STD))
    assert torch.equal(targets, torch.arange(64) % 10)


@pytest.mark.parametrize("wanted", [{"crop": 8}, {"rotate": 45.0}])
def test_what_comes_in_from_outside_is_black(
    wanted: dict[str, object], no_augment: Augment
) -> None:
    white = torch.full((64, 32, 32, 3), 255, dtype=torch.uint8)
    inputs, _ = applied(augmentation(no_augment, **wanted), white)
    pixels = inputs * STD[:, None, None] + MEAN[:, None, None]
    assert -1e-5 < pixels.min() < 1e-5
    assert pixels[:, :, 16, 16].min() > 0.999


def test_what_is_erased_becomes_the_mean(images: Tensor, no_augment: Augment) -> None:
    for wanted in (
        {"cutout": 16},
        {"erasing": {"probability": 1.0, "scale": [0.2, 0.3], "ratio": [1.0, 1.0]}},
    ):
        inputs, _ = applied(augmentation(no_augment, **wanted), images)
        assert (inputs == 0).all(dim=1).flatten(1).any(dim=1).all()


def test_the_order_of_all(no_augment: Augment) -> None:
    everything = augmentation(no_augment, **EVERYTHING)
    assert [type(transform).__name__ for transform in everything.transforms] == [
        "Crop", "ResizedCrop", "RandomFlip", "RandAugment", "ToUnit", "ColorJitter", "Rotate",
        "Standardize", "RandomErasing", "Cutout",
    ]  # fmt: skip
    assert everything.mixing is not None
    assert len(augmentation(no_augment).transforms) == 2
    assert augmentation(no_augment).mixing is None


def test_targets_of_mixed_images_are_probabilities(images: Tensor, no_augment: Augment) -> None:
    what = augmentation(no_augment, mixup={"probability": 1.0, "alpha": 1.0})
    _, targets = applied(what, images)
    assert targets.shape == (64, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert (targets.max(1).values < 1).any()


@pytest.mark.parametrize(("key", "pixels"), [("crop", 17), ("cutout", 33)])
def test_changes_that_leave_nothing_of_a_picture_are_refused(
    no_augment: Augment, key: str, pixels: int
) -> None:
    check_strengths("vit", no_augment.model_copy(update={key: pixels - 1}), 32)
    with pytest.raises(
        UserError, match=rf"models.vit.augment.{key} is {pixels}.*32 pixels"
    ) as said:
        check_strengths("vit", no_augment.model_copy(update={key: pixels}), 32)
    assert f"0 … {pixels - 1}" in str(said.value)
