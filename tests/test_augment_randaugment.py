"""RandAugment compared with torchvision's, for every operation and several magnitudes."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from cifarpipe.augment.randaugment import OPERATIONS, RandAugment, operations
from cifarpipe.augment.transform import EpochOrder
from cifarpipe.config.recipes import RandAugmentOperation

CPU = torch.device("cpu")
SIGNED = {
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness",
}  # fmt: skip


class OneOperation(v2.RandAugment):
    """torchvision's RandAugment with a fixed operation."""

    def __init__(self, name: str, magnitude: int) -> None:
        super().__init__(num_ops=1, magnitude=magnitude)
        self.name = name

    def _get_random_item(self, dct: dict[str, object]) -> tuple[str, object]:
        return self.name, dct[self.name]


def torchvision_name(name: str) -> str:
    """Return torchvision's name: `shear_x` is its `ShearX`."""
    return {"autocontrast": "AutoContrast"}.get(name, name.title().replace("_", ""))


@pytest.mark.thorough
@pytest.mark.parametrize("m", [0, 1, 9, 15, 16, 18, 24, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_equals_torchvision(name: str, m: int, image_batch: Tensor) -> None:
    theirs = OneOperation(torchvision_name(name), m)
    positive, negative = (
        (lambda x: x) if operation is None else operation
        for operation in operations(m, 32, CPU)[name]
    )
    torch.manual_seed(0)
    # torchvision draws the sign: 20 tries show both.
    expected = [theirs(image_batch) for _ in range(20 if name in SIGNED else 1)]
    found = [positive(image_batch), negative(image_batch)]
    for result in expected:
        assert any(torch.equal(result, own) for own in found)
    for own in found:
        assert any(torch.equal(result, own) for result in expected)


def test_translation_scales_with_the_image() -> None:
    """Of images of 331 × 331 pixels, the largest translation is 150 pixels, without shear."""
    image = torch.randint(1, 256, (1, 3, 331, 331), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    for name, axis in (("translate_x", 3), ("translate_y", 2)):
        for operation, sign in zip(operations(30, 331, CPU)[name], (1, -1), strict=True):
            assert operation is not None
            moved = image.roll(sign * 150, axis)
            moved.narrow(axis, 0 if sign > 0 else 331 - 150, 150).zero_()
            assert torch.equal(operation(image), moved)


def test_list_of_operations_is_complete() -> None:
    assert tuple(operations(9, 32, CPU)) == OPERATIONS
    assert {torchvision_name(name) for name in OPERATIONS} == set(
        v2.RandAugment._AUGMENTATION_SPACE
    )


def test_batch_equals_single_images_in_drawn_order(image_batch: Tensor) -> None:
    augment = RandAugment(n=2, m=9, names=OPERATIONS, size=32, device=CPU)
    drawn = augment.draw(np.random.default_rng(0), EpochOrder(1, np.arange(len(image_batch))))
    changed = augment.apply(image_batch.clone(), torch.from_numpy(drawn))
    known = operations(9, 32, CPU)
    for found, image, codes in zip(changed, image_batch, drawn, strict=True):
        single = image[None]
        for code in codes:
            operation = known[OPERATIONS[code // 2]][code % 2]
            single = single if operation is None else operation(single)
        assert torch.equal(found, single[0])


def test_operations_and_signs_are_uniform() -> None:
    names = tuple(name for name in OPERATIONS if name != "solarize")
    augment = RandAugment(n=2, m=9, names=names, size=32, device=CPU)
    drawn = augment.draw(np.random.default_rng(0), EpochOrder(1, np.arange(20_000)))
    assert (drawn.shape, drawn.dtype) == ((20_000, 2), np.int8)
    for column in drawn.T:
        assert stats.chisquare(np.bincount(column, minlength=26)).pvalue > 1e-3
    pairs = np.zeros((26, 26))
    np.add.at(pairs, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3  # independent


def test_input_batch_is_unchanged(image_batch: Tensor) -> None:
    before = image_batch.clone()
    augment = RandAugment(n=1, m=9, names=("solarize",), size=32, device=CPU)
    changed = augment.apply(image_batch, torch.zeros(len(image_batch), 1, dtype=torch.int8))
    assert torch.equal(image_batch, before)
    assert not torch.equal(changed, before)


def test_schema_allows_exactly_these_operations() -> None:
    assert set(get_args(RandAugmentOperation)) == set(OPERATIONS)
