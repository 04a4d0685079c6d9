"""Randomisation check: rank correlations, and networks with randomised weights."""

import numpy as np
import pytest
import scipy.stats
import torch

from cifarpipe.config.architectures import ARCHITECTURES
from cifarpipe.config.schema import Params
from cifarpipe.explanations.randomisation import (
    INITIALISATION,
    randomised_network,
    rank_correlation,
)
from tests.support.origins import make_origin

CPU = torch.device("cpu")


def test_rank_correlation_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 4, 4))
    others[0] = maps[0] ** 3
    maps[2] = 7.0
    found = rank_correlation(maps.astype(np.float32), others.astype(np.float32))
    expected = scipy.stats.spearmanr(maps[1].ravel(), others[1].ravel()).statistic
    assert found == pytest.approx([1.0, expected, np.nan], nan_ok=True)


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_randomised_network_depends_only_on_seed(name: str, demo_params: Params) -> None:
    origin = make_origin(name, ["a", "b"], architecture=demo_params.models[name].architecture)
    torch.manual_seed(7)
    first, second, other = (randomised_network(origin, CPU, seed) for seed in (0, 0, 1))
    after = torch.rand(())
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(()))  # the global generator is unchanged
    assert not first.training
    weights, same, different = (next(net.parameters()) for net in (first, second, other))
    assert torch.equal(weights, same)
    assert not torch.equal(weights, different)
    torch.manual_seed(0)  # the initial weights of a training with the same seed
    assert not torch.equal(weights, next(origin.build().parameters()))


def test_keys_of_initialisation_exist() -> None:
    keys = {key for kind in ARCHITECTURES.values() for key in kind.model_fields}
    assert set(INITIALISATION) <= keys


def test_random_networks_have_no_special_initialisation(demo_params: Params) -> None:
    """Mimetic attention is not random; zero-initialised branches have no effect."""
    resnet, vit = (demo_params.models[name].architecture for name in ("resnet18_ln", "vit"))
    origin = make_origin("r", ["a", "b"], architecture=resnet | {"zero_init_residual": True})
    norms = [
        module.weight
        for name, module in randomised_network(origin, CPU, 0).named_modules()
        if name.endswith("norm2")
    ]
    assert norms
    assert all(norm.abs().min() > 0 for norm in norms)
    origins = [
        make_origin("v", ["a", "b"], architecture=vit | {"init": init})
        for init in ("mimetic", "normal")
    ]
    networks = [randomised_network(each, CPU, 0).state_dict() for each in origins]
    assert all(torch.equal(one, networks[1][key]) for key, one in networks[0].items())
    assert origins[0].architecture["init"] == "mimetic"  # unchanged
    second = randomised_network(origins[0], CPU, 0, number=1).state_dict()
    assert not torch.equal(second["head.weight"], networks[0]["head.weight"])


def test_rank_correlation_of_maps_between_0_and_1() -> None:
    maps = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    assert rank_correlation(maps, maps) == pytest.approx([1.0])


def test_rank_correlation_needs_as_many_maps_of_each() -> None:
    maps = np.random.default_rng(0).random((2, 4, 4), np.float32)
    with pytest.raises(ValueError, match="shorter"):
        rank_correlation(maps, maps[:1])
