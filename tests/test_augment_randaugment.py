"""RandAugment against torchvision's class, operation by operation and strength by strength."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from cifarpipe.augment.randaugment import OPERATIONS, RandAugment, operations
from cifarpipe.augment.transform import EpochOrder
from cifarpipe.config.schema import RandAugmentOperation

CPU = torch.device("cpu")
SIGNED = {
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness",
}  # fmt: skip


class OneOperation(v2.RandAugment):
    """torchvision's RandAugment with the draw of the operation taken out."""

    def __init__(self, name: str, magnitude: int) -> None:
        super().__init__(num_ops=1, magnitude=magnitude)
        self.name = name

    def _get_random_item(self, dct: dict[str, object]) -> tuple[str, object]:
        return self.name, dct[self.name]


def torchvisions(name: str) -> str:
    """Return torchvision's name: `shear_x` is its `ShearX`."""
    return {"autocontrast": "AutoContrast"}.get(name, name.title().replace("_", ""))


@pytest.mark.parametrize("m", [0, 1, 9, 15, 16, 18, 24, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name: str, m: int, pictures: Tensor) -> None:
    theirs = OneOperation(torchvisions(name), m)
    positive, negative = (
        (lambda x: x) if operation is None else operation
        for operation in operations(m, 32, CPU)[name]
    )
    torch.manual_seed(0)
    # The sign is torchvision's own draw: of 20 tries some fall on each side.
    results = [theirs(pictures) for _ in range(20 if name in SIGNED else 1)]
    ours = [positive(pictures), negative(pictures)]
    for expected in results:
        assert any(torch.equal(expected, result) for result in ours)
    for result in ours:
        assert any(torch.equal(expected, result) for expected in results)


def test_the_list_is_complete() -> None:
    assert tuple(operations(9, 32, CPU)) == OPERATIONS
    assert {torchvisions(name) for name in OPERATIONS} == set(v2.RandAugment._AUGMENTATION_SPACE)


def test_a_batch_is_changed_image_by_image_in_the_drawn_order(pictures: Tensor) -> None:
    augment = RandAugment(n=2, m=9, names=OPERATIONS, size=32, device=CPU)
    drawn = augment.draw(np.random.default_rng(0), EpochOrder(1, np.arange(len(pictures))))
    together = augment.apply(pictures.clone(), torch.from_numpy(drawn))
    known = operations(9, 32, CPU)
    for ours, picture, codes in zip(together, pictures, drawn, strict=True):
        alone = picture[None]
        for code in codes:
            operation = known[OPERATIONS[code // 2]][code % 2]
            alone = alone if operation is None else operation(alone)
        assert torch.equal(ours, alone[0])


def test_operations_and_signs_are_drawn_equally_often() -> None:
    names = tuple(name for name in OPERATIONS if name != "solarize")
    augment = RandAugment(n=2, m=9, names=names, size=32, device=CPU)
    drawn = augment.draw(np.random.default_rng(0), EpochOrder(1, np.arange(20_000)))
    assert drawn.shape == (20_000, 2)
    for column in drawn.T:
        assert stats.chisquare(np.bincount(column, minlength=26)).pvalue > 1e-3
    pairs = np.zeros((26, 26))
    np.add.at(pairs, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3  # the two are independent


def test_the_batch_handed_in_stays_as_it_was(pictures: Tensor) -> None:
    before = pictures.clone()
    augment = RandAugment(n=1, m=9, names=("solarize",), size=32, device=CPU)
    changed = augment.apply(pictures, torch.zeros(len(pictures), 1, dtype=torch.int8))
    assert torch.equal(pictures, before)
    assert not torch.equal(changed, before)


def test_schema_allows_exactly_these_operations() -> None:
    assert set(get_args(RandAugmentOperation)) == set(OPERATIONS)
