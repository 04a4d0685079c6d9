"""The figures of a metrics file: by hand, and on networks that are known to look or not to."""

import json

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from cifarpipe.config.schema import Params
from cifarpipe.explanations.quality import (
    evidence_figures,
    mask_figures,
    randomisation_figures,
    removal_figures,
    with_random_weights,
)
from tests.support.origins import make_origin


def test_maps_without_evidence_are_counted_by_kind() -> None:
    maps = np.ones((5, 2, 2), np.float32)
    maps[[0, 2, 3]] = -1
    right = np.array([True, True, False, True, False])
    assert evidence_figures(maps, right) == {
        "explained": 5, "without_evidence_errors": 1, "without_evidence_correct": 2,
    }  # fmt: skip


def test_mask_figures_by_hand() -> None:
    maps = np.zeros((3, 2, 2), np.float32)
    maps[:, 0, 0] = 1
    masks = np.zeros((3, 2, 2), bool)
    masks[:2, 0, 0] = True
    masks[2, 1, 1] = True
    interval = scipy.stats.binomtest(2, 3).proportion_ci(method="wilson")
    energy = scipy.stats.ttest_1samp([1, 1, 0], 0).confidence_interval(0.95)
    assert mask_figures(maps, masks) == {
        "pointing_game_images": 3,
        "pointing_game": 0.6667,
        "pointing_game_low": round(interval.low, 4),
        "pointing_game_high": round(interval.high, 4),
        "pointing_game_centre": 0.25,
        "pointing_game_random": 0.25,
        "energy_inside": 0.6667,
        "energy_inside_low": round(energy.low, 4),
        "energy_inside_high": round(energy.high, 4),
        "energy_inside_centre": 0.25,
        "energy_inside_random": 0.25,
    }


def test_no_images_leave_figures_that_can_be_written() -> None:
    none = np.empty((0, 1, 1), np.float32)
    figures = (
        mask_figures(none, np.empty((0, 8, 8), bool))
        | randomisation_figures(none, none)
        | evidence_figures(none, np.empty(0, bool))
        | removal_figures(
            corner_logits, torch.empty(0, 3, 8, 8), none, torch.empty(0).long(), seed=0
        )
    )
    json.dumps(figures, allow_nan=False)
    assert figures["pointing_game_images"] == figures["explained"] == 0
    assert not {"pointing_game", "road", "randomisation_passed"} & set(figures)


def test_an_interval_without_ends_is_left_out() -> None:
    one = np.ones((1, 4, 4), np.float32)
    batch = torch.zeros(1, 3, 8, 8)
    figures = removal_figures(corner_logits, batch, one, torch.zeros(1).long(), seed=0)
    json.dumps(figures, allow_nan=False)
    assert "road_over_random" in figures
    assert "road_over_random_low" not in figures


def corner_logits(batch: Tensor) -> Tensor:
    """Return logits of a network for which the top left quarter alone matters."""
    seen = batch[:, :, :4, :4].mean(dim=(1, 2, 3))
    return torch.stack([4 * seen, -4 * seen], dim=1)


@pytest.mark.parametrize("knows", [True, False])
def test_maps_that_know_beat_those_that_do_not_and_others_do_not(knows: bool) -> None:
    rng = np.random.default_rng(1)  # not what the maps of chance are drawn by
    batch = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 10
    batch[:, :, :4, :4] += 1
    maps = rng.normal(size=(16, 4, 4)).astype(np.float32)
    maps[:, :2, :2] += 5 * knows
    figures = removal_figures(corner_logits, batch, maps, torch.zeros(16).long(), seed=0)
    assert (figures["road_over_random_low"] > 0) == knows
    assert (figures["road_over_centre_low"] > 0) == knows
    low, middle, high = (figures[f"road_over_random{end}"] for end in ("_low", "", "_high"))
    assert low < middle < high
    assert middle == pytest.approx(figures["road"] - figures["road_random"], abs=2e-4)
    if knows:
        assert figures["deletion"] < figures["deletion_random"]
        assert figures["insertion"] > figures["insertion_random"]


def test_the_randomisation_check_fails_for_maps_that_do_not_ask_the_weights() -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 20, 8, 8)).astype(np.float32)
    assert randomisation_figures(maps, maps * 3 + 1)["randomisation_passed"] == 0
    assert randomisation_figures(maps, -maps)["randomisation_passed"] == 0
    assert "randomisation_passed" not in randomisation_figures(maps[:1], others[:1])
    passed = randomisation_figures(maps, others)
    assert passed["randomisation_passed"] == 1
    assert abs(passed["randomisation_correlation"]) < 0.1


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_random_weights_are_a_function_of_their_seed_and_leave_chance_alone(
    name: str, demo_params: Params
) -> None:
    origin = make_origin(name, ["a", "b"], entry=demo_params.models[name].model_dump(mode="json"))
    torch.manual_seed(7)
    first, again, other = (
        with_random_weights(origin, torch.device("cpu"), seed) for seed in (0, 0, 1)
    )
    after = torch.rand(())
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(()))
    assert not first.training
    weights, same, differ = (next(net.parameters()) for net in (first, again, other))
    assert torch.equal(weights, same)
    assert not torch.equal(weights, differ)
    torch.manual_seed(0)  # as training sets out
    assert not torch.equal(weights, next(origin.build().parameters()))
