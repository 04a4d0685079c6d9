"""Colour jitter compared with torchvision's, and its draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from cifarpipe.augment.color import ColorJitter
from cifarpipe.augment.transform import EpochOrder

CHANGES = [
    ("brightness", 0, reference.adjust_brightness, [0.0, 0.4, 1.0, 1.9]),
    ("contrast", 1, reference.adjust_contrast, [0.0, 0.4, 1.0, 1.9]),
    ("saturation", 2, reference.adjust_saturation, [0.0, 0.4, 1.0, 1.9]),
    ("hue", 3, reference.adjust_hue, [-0.5, -0.1, 0.0, 0.25, 0.5]),
]


def jitter(**strength: float) -> ColorJitter:
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return ColorJitter(**(none | strength))


@pytest.mark.parametrize(("name", "column", "adjust", "values"), CHANGES)
def test_each_change_equals_torchvision(
    image_batch: Tensor, name: str, column: int, adjust: object, values: list[float]
) -> None:
    image_batch[0] = 77  # grey has no hue
    batch = image_batch.float() / 255
    drawn = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(len(batch), 1)
    drawn[:, column] = torch.tensor(values)[torch.arange(len(batch)) % len(values)]
    ours = jitter(**{name: 0.5}).apply(batch.clone(), drawn)
    for result, image, value in zip(ours, batch, drawn[:, column], strict=True):
        assert callable(adjust)
        torch.testing.assert_close(result, adjust(image, value.item()), atol=1e-5, rtol=0)


def test_changes_are_applied_in_order(image_batch: Tensor) -> None:
    batch = image_batch.float() / 255
    jitter_all = ColorJitter(0.4, 0.3, 0.2, 0.1)
    drawn = torch.from_numpy(
        jitter_all.draw(np.random.default_rng(0), EpochOrder(1, np.arange(64)))
    )
    expected = batch
    for _, column, adjust, _ in CHANGES:
        rows = zip(expected, drawn[:, column].tolist(), strict=True)
        expected = torch.stack([adjust(image, value) for image, value in rows])
    torch.testing.assert_close(jitter_all.apply(batch.clone(), drawn), expected, atol=1e-5, rtol=0)


def test_factors_are_uniform_and_not_negative() -> None:
    strong = ColorJitter(0.4, 3.0, 0.2, 0.5)
    drawn = strong.draw(np.random.default_rng(0), EpochOrder(1, np.arange(20_000)))
    for column, (low, high) in enumerate([(0.6, 1.4), (0.0, 4.0), (0.8, 1.2), (-0.5, 0.5)]):
        assert stats.kstest(drawn[:, column], stats.uniform(low, high - low).cdf).pvalue > 1e-3
