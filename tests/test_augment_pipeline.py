"""All augmentations of a recipe: their order, chunks of images, and nothing without a recipe."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cifarpipe.augment.color import ColorJitter
from cifarpipe.augment.erasing import Cutout, RandomErasing
from cifarpipe.augment.geometry import Crop, ResizedCrop, Rotate
from cifarpipe.augment.mixing import Mixing
from cifarpipe.augment.pipeline import Augmentation, check_sizes
from cifarpipe.augment.transform import EpochOrder
from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Augment
from cifarpipe.networks.normalize import normalize
from tests.support.params_text import AUGMENT

MEAN = torch.tensor([0.4914, 0.4822, 0.4465])
STD = torch.tensor([0.2470, 0.2435, 0.2616])
CASES = [
    *({name: value} for name, value in AUGMENT.items()),
    {"flip": "alternating"},
    *({"color_jitter": {name: 0.2}} for name in ("brightness", "contrast", "saturation", "hue")),
    AUGMENT,
]
# Keys that may be given and change nothing.
IN_PIXELS = [key for key, value in AUGMENT.items() if type(value) is int]
NO_CHANGE = [
    {},
    {"crop": 0, "rotate": 0.0, "cutout": 0},
    {"randaugment": {"n": 0, "m": 9}},
    {"color_jitter": {}},
    {"color_jitter": {"brightness": 0.0, "hue": 0.0}},
    {"erasing": {"probability": 0.0, "scale": [0.1, 0.2], "ratio": [1.0, 1.0]}},
    {"mixup": {"probability": 0.0, "alpha": 1.0}, "cutmix": {"probability": 0.0, "alpha": 1.0}},
]


def make(options: dict[str, object] | None) -> Augmentation:
    recipe = None if options is None else Augment.model_validate(options)
    return Augmentation(recipe, mean=MEAN, std=STD, image_size=32, classes=10, seed=0)


def applied(
    augmentation: Augmentation,
    images: Tensor,
    *,
    seed: int = 0,
    chunk: int = 64,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Augment `[N, 32, 32, 3]` in chunks."""
    labels = torch.arange(len(images)) % 10
    epoch = EpochOrder(1, np.arange(len(images)))
    drawn = augmentation.draw(np.random.default_rng(seed), epoch, batch_size)
    parts = [
        augmentation.apply(images[some], labels[some], drawn[some])
        for some in (slice(start, start + chunk) for start in range(0, len(images), chunk))
    ]
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


@pytest.fixture
def images(image_batch: Tensor) -> Tensor:
    return image_batch.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("options", CASES, ids=lambda options: ",".join(options))
def test_chunk_size_changes_nothing(options: dict[str, object], images: Tensor) -> None:
    augmentation = make(options)
    before = images.clone()
    inputs, targets = applied(augmentation, images)
    assert inputs.shape == (64, 3, 32, 32)
    assert inputs.dtype == torch.float32
    for chunk in (16, 32):
        chunked = applied(augmentation, images, chunk=chunk)
        assert torch.equal(inputs, chunked[0])
        assert torch.equal(targets, chunked[1])
    assert torch.equal(images, before)  # the stored images are never changed
    assert not torch.equal(inputs, normalize(images, MEAN, STD))
    if options != {"flip": "alternating"}:
        assert not torch.equal(inputs, applied(augmentation, images, seed=1)[0])


@pytest.mark.parametrize("options", [None, *NO_CHANGE])
def test_absent_or_zero_options_only_normalise(
    options: dict[str, object] | None, images: Tensor
) -> None:
    augmentation = make(options)
    assert [type(each).__name__ for each in augmentation.transforms] == ["ToUnit", "Standardize"]
    assert augmentation.mixing is None
    inputs, targets = applied(augmentation, images)
    assert torch.equal(inputs, normalize(images, MEAN, STD))
    assert torch.equal(targets, torch.arange(64) % 10)


@pytest.mark.parametrize("options", [{"crop": 8}, {"rotate": 45.0}])
def test_pixels_from_outside_are_black(options: dict[str, object]) -> None:
    white = torch.full((64, 32, 32, 3), 255, dtype=torch.uint8)
    inputs, _ = applied(make(options), white)
    pixels = inputs * STD[:, None, None] + MEAN[:, None, None]
    assert -1e-5 < pixels.min() < 1e-5
    assert pixels[:, :, 16, 16].min() > 0.999


@pytest.mark.parametrize(
    "options",
    [
        {"cutout": 16},
        {"erasing": {"probability": 1.0, "scale": [0.2, 0.3], "ratio": [1.0, 1.0]}},
    ],
)
def test_erased_pixels_get_the_mean_colour(options: dict[str, object], images: Tensor) -> None:
    inputs, _ = applied(make(options), images)
    assert (inputs == 0).all(dim=1).flatten(1).any(dim=1).all()


def test_transforms_are_in_their_order() -> None:
    augmentation = make(AUGMENT)
    assert [type(transform).__name__ for transform in augmentation.transforms] == [
        "Crop", "ResizedCrop", "RandomFlip", "RandAugment", "ToUnit", "ColorJitter", "Rotate",
        "Standardize", "RandomErasing", "Cutout",
    ]  # fmt: skip
    assert augmentation.mixing is not None


def test_transforms_get_the_options_of_the_recipe() -> None:
    augmentation = make(
        {
            "crop": 3,
            "resized_crop": {"scale": [0.5, 0.9], "ratio": [0.7, 1.3]},
            "color_jitter": {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3, "hue": 0.4},
            "rotate": 5.0,
            "erasing": {"probability": 0.6, "scale": [0.1, 0.2], "ratio": [0.3, 3.0]},
            "cutout": 7,
            "mixup": {"probability": 0.25, "alpha": 0.8},
            "cutmix": {"probability": 0.5, "alpha": 1.5},
        }
    )
    crop, resized_crop, _, jitter, rotate, _, erasing, cutout = augmentation.transforms
    assert crop == Crop(padding=3)
    assert resized_crop == ResizedCrop(scale=(0.5, 0.9), ratio=(0.7, 1.3), size=32)
    assert jitter == ColorJitter(brightness=0.1, contrast=0.2, saturation=0.3, hue=0.4)
    assert rotate == Rotate(degrees=5.0)
    assert erasing == RandomErasing(probability=0.6, scale=(0.1, 0.2), ratio=(0.3, 3.0), size=32)
    assert cutout == Cutout(side=7, size=32)
    assert augmentation.mixing == Mixing(
        mixup=0.25, mixup_alpha=0.8, cutmix=0.5, cutmix_alpha=1.5, size=32, classes=10
    )


@pytest.mark.parametrize(
    "options",
    [{name: AUGMENT[name]} for name in AUGMENT if name not in ("randaugment", "cutmix")],
    ids=lambda options: ",".join(options),
)
def test_batches_stay_on_their_device(options: dict[str, object], images: Tensor) -> None:
    """PyTorch's meta device stands for a GPU: tensors of two devices can't be combined."""
    meta = torch.device("meta")
    augmentation = Augmentation(
        Augment.model_validate(options),
        mean=MEAN.to(meta),
        std=STD.to(meta),
        image_size=32,
        classes=10,
        seed=0,
    )
    drawn = augmentation.draw(np.random.default_rng(0), EpochOrder(1, np.arange(64)), 16)
    assert all(each.device == meta for each in drawn.changes)
    labels = torch.arange(64, device=meta) % 10
    inputs, targets = augmentation.apply(images.to(meta), labels, drawn)
    assert inputs.device == targets.device == meta
    assert inputs.shape == (64, 3, 32, 32)


def test_draws_are_placed_where_they_are_read() -> None:
    """RandAugment groups images by their draws, on the host."""
    meta = torch.device("meta")
    recipe = Augment.model_validate({name: AUGMENT[name] for name in ("crop", "randaugment")})
    augmentation = Augmentation(
        recipe, mean=MEAN.to(meta), std=STD.to(meta), image_size=32, classes=10, seed=0
    )
    drawn = augmentation.draw(np.random.default_rng(0), EpochOrder(1, np.arange(8)), 4)
    assert [each.device.type for each in drawn.changes] == ["meta", "cpu", "meta", "meta"]


def test_draws_of_some_images_are_those_of_all() -> None:
    augmentation = make(AUGMENT)
    epoch, shown = EpochOrder(1, np.arange(64)), np.array([2, 3, 10, 11, 63])
    whole = augmentation.draw(np.random.default_rng(0), epoch, 16)
    part = augmentation.draw(np.random.default_rng(0), epoch, 16, shown)
    for found, expected in zip(part.changes, whole.changes, strict=True):
        assert torch.equal(found, expected[[2, 3, 10, 11, 63]])
    assert part.mixing is not None
    assert whole.mixing is not None
    assert torch.equal(part.mixing.share, whole.mixing.share[[2, 3, 10, 11, 63]])


def test_absent_jitter_keys_change_nothing() -> None:
    _, jitter, _ = make({"color_jitter": {"brightness": 0.2}}).transforms
    assert jitter == ColorJitter(brightness=0.2, contrast=0.0, saturation=0.0, hue=0.0)


def test_omitted_operations_are_not_drawn() -> None:
    augmentation = make({"randaugment": {"n": 1, "m": 9, "omit": ["solarize", "rotate"]}})
    names = augmentation.transforms[0].names
    assert len(names) == 12
    assert not {"solarize", "rotate"} & set(names)


def test_mixed_targets_are_probabilities(images: Tensor) -> None:
    _, targets = applied(make({"mixup": {"probability": 1.0, "alpha": 1.0}}), images)
    assert targets.shape == (64, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert (targets.max(1).values < 1).any()


@pytest.mark.parametrize("options", [{"crop": 4}, {"mixup": {"probability": 1.0, "alpha": 1.0}}])
def test_empty_batch_stays_empty(options: dict[str, object], images: Tensor) -> None:
    augmentation = make(options)
    drawn = augmentation.draw(np.random.default_rng(0), EpochOrder(1, np.arange(4)), 4)
    inputs, targets = augmentation.apply(images[:0], torch.arange(0), drawn[:0])
    assert inputs.shape == (0, 3, 32, 32)
    assert targets.shape == ((0, 10) if "mixup" in options else (0,))


@pytest.mark.parametrize(("key", "largest"), [("crop", 16), ("cutout", 32)])
def test_transforms_larger_than_images_are_refused(key: str, largest: int) -> None:
    check_sizes("vit", Augment.model_validate({key: largest}), 32)
    message = rf"models.vit.augment.{key} is {largest + 1}, .* 32 × 32 pixels"
    with pytest.raises(UserError, match=message) as error:
        check_sizes("vit", Augment.model_validate({key: largest + 1}), 32)
    assert f"0 to {largest}" in str(error.value)


@pytest.mark.parametrize("key", IN_PIXELS)
def test_every_size_in_pixels_is_limited_and_off_at_zero(key: str) -> None:
    with pytest.raises(UserError, match=rf"augment.{key} is 33, .* 32 × 32 pixels"):
        check_sizes("vit", Augment.model_validate({key: 33}), 32)
    assert [type(each).__name__ for each in make({key: 0}).transforms] == ["ToUnit", "Standardize"]


def test_crop_of_odd_images_is_limited() -> None:
    check_sizes("vit", Augment(crop=16), 33)
    with pytest.raises(UserError, match=r"Allowed: 0 to 16\.$"):
        check_sizes("vit", Augment(crop=17), 33)
