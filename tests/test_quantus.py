"""Metrics of explanations compared with those of Quantus (arXiv:2202.06861), where it is installed.

It is not among the packages of development, since it needs opencv-python, which takes the place of
the opencv-python-headless that grad-cam uses. `uv pip install --no-deps quantus cachetools
scikit-image lazy-loader` installs what these tests need.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.explanations.complexity import sparseness
from cifarpipe.explanations.localisation import energy_inside, pointing_game
from cifarpipe.explanations.robustness import max_sensitivity
from cifarpipe.results.maps import Maps

quantus = pytest.importorskip("quantus", exc_type=ImportError)

pytestmark = pytest.mark.thorough

COUNT, SIZE = 60, 8
RNG = np.random.default_rng(0)
# Of the size of the images, so that nothing is resized.
MAPS: Maps = RNG.gamma(0.5, size=(COUNT, SIZE, SIZE)).astype(np.float32)
MASKS = RNG.random((COUNT, SIZE, SIZE)) < 0.3
BATCH = torch.from_numpy(RNG.normal(size=(COUNT, 3, SIZE, SIZE)).astype(np.float32))


def score(metric: Any, **options: object) -> NDArray[np.float64]:
    """Return a metric of Quantus for each map."""
    scores = metric(
        model=nn.Flatten(), x_batch=BATCH.numpy(), y_batch=np.zeros(COUNT, int),
        a_batch=MAPS[:, None].astype(np.float64), device="cpu", **options,
    )  # fmt: skip
    return np.array(scores, float)


def options(**others: object) -> dict[str, object]:
    return {"normalise": False, "abs": False, "disable_warnings": True, **others}


def test_sparseness() -> None:
    expected = score(quantus.Sparseness(**options()))
    np.testing.assert_allclose(sparseness(MAPS), expected, atol=1e-5)


def test_energy_inside() -> None:
    expected = score(quantus.RelevanceMassAccuracy(**options()), s_batch=MASKS[:, None])
    np.testing.assert_allclose(energy_inside(MAPS, MASKS), expected, atol=1e-5)


def test_pointing_game() -> None:
    expected = score(quantus.PointingGame(**options()), s_batch=MASKS[:, None])
    assert 0 < expected.sum() < COUNT
    assert pointing_game(MAPS, MASKS).hits.tolist() == [each == 1 for each in expected]


def squares(batch: Tensor) -> Maps:
    """Return maps that change with the image."""
    return batch.square().sum(dim=1).numpy()


def test_max_sensitivity() -> None:
    """With the same noise."""
    radius = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    generator = torch.Generator().manual_seed(3)

    def perturb(arr: NDArray[np.float32], **_: object) -> NDArray[np.float32]:
        noise = 2 * torch.rand(BATCH.shape, generator=generator) - 1
        return arr + (radius * noise).reshape(arr.shape).numpy()

    def explain(inputs: NDArray[np.float32], **_: object) -> Maps:
        return squares(torch.as_tensor(inputs).float())[:, None]

    metric = quantus.MaxSensitivity(**options(nr_samples=5, perturb_func=perturb))
    expected = metric(
        model=nn.Flatten(), x_batch=BATCH.numpy(), y_batch=np.zeros(COUNT, int),
        a_batch=squares(BATCH)[:, None], explain_func=explain, device="cpu",
    )  # fmt: skip
    found = max_sensitivity(squares, BATCH, squares(BATCH), radius, seed=3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
