"""Max-sensitivity by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cifarpipe.explanations.robustness import DRAWS, max_sensitivity
from cifarpipe.results.maps import Maps

RADIUS = torch.tensor([0.5, 1.0, 2.0])[:, None, None]


def red(batch: Tensor) -> Maps:
    """Return the first channel as maps."""
    maps: Maps = batch[:, 0].numpy()
    return maps


def test_max_sensitivity_by_hand() -> None:
    """Of maps that are the red channel, the change is the noise of that channel."""
    batch = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)) + 3
    seen: list[Tensor] = []

    def record(noisy: Tensor) -> Maps:
        seen.append(noisy - batch)
        return red(noisy)

    found = max_sensitivity(record, batch, red(batch), RADIUS, seed=0)
    assert len(seen) == DRAWS
    noise = torch.stack(seen)
    for channel, most in enumerate((0.5, 1.0, 2.0)):
        values = noise[:, :, channel]
        assert values.abs().max() == pytest.approx(most, rel=0.02)
        assert values.min() < 0 < values.max()
        assert abs(values.mean()) < most / 10
    changes = torch.linalg.vector_norm(noise[:, :, 0], dim=(2, 3)).amax(dim=0)
    norms = torch.linalg.vector_norm(batch[:, 0], dim=(1, 2))
    assert found == pytest.approx((changes / norms).numpy(), rel=1e-5)


def test_maps_that_never_change_have_no_sensitivity() -> None:
    batch, maps = torch.zeros(2, 3, 6, 6), np.ones((2, 3, 3), np.float32)
    assert max_sensitivity(lambda _noisy: maps, batch, maps, RADIUS, seed=0).tolist() == [0, 0]


def test_map_of_zeros_gives_the_distance_itself() -> None:
    batch, maps = torch.zeros(1, 3, 6, 6), np.zeros((1, 2, 2), np.float32)
    found = max_sensitivity(lambda _noisy: maps + 3, batch, maps, RADIUS, seed=0)
    assert found == pytest.approx([6])


def test_noise_depends_only_on_the_seed() -> None:
    batch = torch.ones(2, 3, 6, 6)
    torch.manual_seed(5)
    first = max_sensitivity(red, batch, red(batch), RADIUS, seed=1)
    after = torch.rand(())
    assert np.array_equal(first, max_sensitivity(red, batch, red(batch), RADIUS, seed=1))
    assert not np.array_equal(first, max_sensitivity(red, batch, red(batch), RADIUS, seed=2))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def test_max_sensitivity_does_not_depend_on_the_scale_of_the_maps() -> None:
    batch = torch.ones(2, 3, 6, 6)
    small = max_sensitivity(
        lambda noisy: red(noisy) / 1000, batch, red(batch) / 1000, RADIUS, seed=0
    )
    assert small == pytest.approx(max_sensitivity(red, batch, red(batch), RADIUS, seed=0))
