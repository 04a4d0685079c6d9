"""Quality of explanations: metrics by hand, and on maps that are known to be good or random."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from torch import Tensor

from cifarpipe.config.schema import Params
from cifarpipe.explanations import quality
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.explanations.quality import (
    complexity_metrics,
    evidence_metrics,
    headline,
    mask_metrics,
    quality_metrics,
    randomisation_metrics,
    removal_metrics,
    robustness_metrics,
)
from cifarpipe.explanations.randomisation import randomised_network
from cifarpipe.report.sentences import judge_explanations
from cifarpipe.results.intervals import mean_interval
from cifarpipe.results.maps import Explanations, Maps
from cifarpipe.results.metrics import Metric, Metrics, metrics_table
from cifarpipe.results.predictions import predictions_table
from cifarpipe.store.prepared import Split
from tests.support.origins import make_origin

CPU = torch.device("cpu")


def finite(metrics: Metrics) -> bool:
    """Return whether every number in the metrics is finite."""
    values = [each for metric in metrics.values() for each in vars(metric).values()]
    return all(math.isfinite(value) for value in values if value is not None)


def test_maps_without_evidence_are_counted() -> None:
    maps = np.ones((5, 2, 2), np.float32)
    maps[[0, 2, 3]] = -1
    correct = np.array([True, True, False, True, False])
    assert evidence_metrics(maps, correct) == {
        "explained": Metric(5),
        "without_evidence_errors": Metric(1),
        "without_evidence_correct": Metric(2),
    }


def test_mask_metrics_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random maps all point at the last quarter, where the object of the third image is."""
    monkeypatch.setattr(quality, "random_maps", lambda maps, _rng: maps[:, ::-1, ::-1])
    maps = np.zeros((3, 2, 2), np.float32)
    maps[:, 0, 0] = 1
    masks = np.zeros((3, 2, 2), bool)
    masks[:2, 0, 0] = True
    masks[2, 1, 1] = True
    interval = scipy.stats.binomtest(2, 3).proportion_ci(method="wilson")
    energy = scipy.stats.ttest_1samp([1, 1, 0], 0).confidence_interval(0.95)

    def gain(*gains: float) -> Metric:
        ends = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.95)
        return Metric(
            round(float(np.mean(gains)), 4),
            low=round(ends.low, 4), high=round(ends.high, 4), images=3,
        )  # fmt: skip

    baselines = {"centre": 0.25, "random": 0.3333, "images": 3}
    assert mask_metrics(maps, masks, seed=0) == {
        "pointing_game": Metric(
            0.6667, low=round(interval.low, 4), high=round(interval.high, 4), **baselines
        ),
        "pointing_game_over_random": gain(1, 1, -1),
        # Each centre of 2 × 2 pixels is the whole image.
        "pointing_game_over_centre": gain(0.75, 0.75, -0.25),
        "energy_inside": Metric(
            0.6667, low=round(energy.low, 4), high=round(energy.high, 4), **baselines
        ),
    }


def test_no_images_give_no_metrics(explainer: Explainer) -> None:
    none = np.empty((0, 1, 1), np.float32)
    batch, classes = torch.empty(0, 3, 8, 8), torch.empty(0).long()
    assert mask_metrics(none, np.empty((0, 8, 8), bool), seed=0) == {}
    assert randomisation_metrics(explainer, batch, none, classes, seed=0) == {}
    assert evidence_metrics(none, np.empty(0, bool))["explained"] == Metric(0)
    found = removal_metrics(corner_logits, batch, none, classes, seed=0)
    assert found == {"removal_images": Metric(0)}
    assert complexity_metrics(none, seed=0) == {}
    assert robustness_metrics(explainer, batch, none, classes, seed=0) == {}


def test_single_image_has_no_interval() -> None:
    one = np.ones((1, 4, 4), np.float32)
    batch, classes = torch.zeros(1, 3, 8, 8), torch.zeros(1).long()
    found = removal_metrics(corner_logits, batch, one, classes, seed=0)
    assert finite(found)
    assert found["road_over_random"].low is None
    assert found["road_over_random"].high is None


def corner_logits(batch: Tensor) -> Tensor:
    """Return logits of a network that reads only the top left quarter."""
    seen = batch[:, :, :4, :4].mean(dim=(1, 2, 3))
    return torch.stack([4 * seen, -4 * seen], dim=1)


@pytest.mark.parametrize("informative", [True, False])
def test_only_informative_maps_beat_the_baselines(informative: bool) -> None:
    rng = np.random.default_rng(1)  # other than that of the random baseline
    batch = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 10
    batch[:, :, :4, :4] += 1
    maps = rng.normal(size=(16, 4, 4)).astype(np.float32)
    maps[:, :2, :2] += 5 * informative
    found = removal_metrics(corner_logits, batch, maps, torch.zeros(16).long(), seed=0)
    assert found["removal_images"] == Metric(16)
    for name, baseline in itertools.product(("road", "saco"), ("random", "centre")):
        gain = found[f"{name}_over_{baseline}"]
        assert (gain.low > 0) == informative
        assert gain.low < gain.value < gain.high
    for name, baseline in itertools.product(("road", "saco", "insertion"), ("random", "centre")):
        gain, metric = found[f"{name}_over_{baseline}"], found[name]
        expected = metric.value - getattr(metric, baseline)
        assert gain.value == pytest.approx(expected, abs=2e-4)
    deletion = found["deletion"]
    for baseline in ("random", "centre"):  # lower is better
        gain = found[f"deletion_over_{baseline}"]
        assert gain.value == pytest.approx(getattr(deletion, baseline) - deletion.value, abs=2e-4)
        assert not informative or gain.low > 0


@pytest.fixture
def explainer(demo_params: Params) -> Explainer:
    origin = make_origin(
        "convmixer", ["a", "b", "c"], architecture=demo_params.models["convmixer"].architecture
    )
    return Explainer(randomised_network(origin, CPU, 5), origin, "gradcam", batch_size=5)


def test_random_maps_score_like_the_random_baseline(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each measure: maps that are drawn anew for each image, and for each time it is asked."""
    rng = np.random.default_rng(7)

    def draw(_self: Explainer, batch: Tensor, _classes: Tensor) -> Maps:
        return rng.normal(size=(len(batch), 8, 8)).astype(np.float32)

    monkeypatch.setattr(Explainer, "maps_of", draw)
    images = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    batch, classes = explainer.normalized(images), torch.zeros(60).long()
    maps = explainer.maps_of(batch, classes)
    weights = torch.randn(3 * 32 * 32, 3, generator=torch.Generator().manual_seed(0)) / 20
    found = removal_metrics(lambda b: b.flatten(1) @ weights, batch, maps, classes, seed=0)
    found |= complexity_metrics(maps, seed=0)
    found |= robustness_metrics(explainer, batch, maps, classes, seed=0)
    found |= mask_metrics(maps, rng.random((60, 32, 32)) < 0.2, seed=0)
    for name in ("road", "saco", "deletion", "insertion"):
        name = f"{name}_over_random"
        assert found[name].low < 0 < found[name].high
    for name in ("sparseness", "pointing_game", "energy_inside"):
        metric = found[name]
        # Twice the interval, since the baseline is drawn, too.
        assert abs(metric.value - metric.random) < metric.high - metric.low
    change = found["max_sensitivity"]
    # Their norms vary; that of a shuffled map does not, so its largest distance is a little less.
    assert 0.95 * change.value < change.random < change.value
    for name in ("deletion", "insertion"):
        assert found[name].value == pytest.approx(found[name].random, abs=0.1)
    said = judge_explanations(found)
    measures = "ROAD, SaCo, deletion, insertion, pointing game"
    assert f"{measures}: not significantly better than random maps" in said
    assert "WARNING: under small noise, these maps are not significantly more stable" in said


def test_unrelated_maps_of_one_sign_are_as_sensitive_as_the_baseline(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their relative distances are a third of those of maps of both signs."""
    rng = np.random.default_rng(7)

    def draw(_self: Explainer, batch: Tensor, _classes: Tensor) -> Maps:
        return (1 + 0.3 * rng.random((len(batch), 8, 8))).astype(np.float32)

    monkeypatch.setattr(Explainer, "maps_of", draw)
    batch = torch.zeros(60, 3, 32, 32)
    maps = explainer.maps_of(batch, torch.zeros(60).long())
    found = robustness_metrics(explainer, batch, maps, torch.zeros(60).long(), seed=0)
    change = found["max_sensitivity"]
    assert change.value < 0.2
    assert change.random == pytest.approx(change.value, rel=0.02)


def randomised_maps(monkeypatch: pytest.MonkeyPatch, maps: Maps) -> None:
    """Let networks with random weights have these maps, by the first pixel of the image."""

    def look_up(_self: Explainer, batch: Tensor, _classes: Tensor) -> Maps:
        return maps[batch[:, 0, 0, 0].long().numpy()]

    monkeypatch.setattr(Explainer, "maps_of", look_up)


def checked(explainer: Explainer, maps: Maps) -> Metrics:
    """Compare maps with those of random weights."""
    batch = torch.zeros(len(maps), 3, 8, 8)
    batch[:, 0, 0, 0] = torch.arange(len(maps))
    return randomisation_metrics(explainer, batch, maps, torch.zeros(len(maps)).long(), seed=0)


@pytest.mark.parametrize("kind", ["scaled", "negated", "negated by class"])
def test_randomisation_check_fails_for_unchanged_maps(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The mean of signed correlations would be near 0 if half of the maps are negated."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(40, 8, 8)).astype(np.float32)
    signs = {"scaled": 3, "negated": -1, "negated by class": rng.choice([-1, 1], (40, 1, 1))}
    randomised_maps(monkeypatch, (maps * signs[kind]).astype(np.float32))
    found = checked(explainer, maps)
    assert found["randomisation_passed"] == Metric(0)
    correlation = found["randomisation_abs_correlation"]
    assert correlation.value == pytest.approx(1)
    assert correlation.random < 0.2  # of other images


def test_randomisation_check_is_passed_by_unrelated_maps(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 40, 8, 8)).astype(np.float32)
    randomised_maps(monkeypatch, others)
    found = checked(explainer, maps)
    assert found["randomisation_passed"] == Metric(1)
    correlation, gain = (
        found["randomisation_abs_correlation"], found["randomisation_over_unrelated"],
    )  # fmt: skip
    assert correlation.low < correlation.random < correlation.high
    assert gain.low < 0 < gain.high
    assert gain.value == pytest.approx(correlation.value - correlation.random, abs=2e-4)
    assert (
        "maps of networks with random weights are not significantly more similar to these "
        "maps than unrelated maps are" in judge_explanations(found)
    )
    few = checked(explainer, maps[:3])
    assert "randomisation_passed" not in few  # one network: no interval
    assert few["randomisation_abs_correlation"].high is None
    assert checked(explainer, maps[:1]) == {}


def test_maps_that_never_change_are_not_said_to_change() -> None:
    """Their shuffled maps are the same, too: all distances are 0."""
    found = {"max_sensitivity": Metric(0.0, low=0.0, high=0.0, random=0.0, centre=0.0)}
    assert judge_explanations(found) == "not evaluated"


def test_maps_that_resemble_those_of_random_weights_are_called_so(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than unrelated maps, although their correlation is far below 0.5."""
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 200, 8, 8)).astype(np.float32)
    randomised_maps(monkeypatch, others + np.float32(0.35) * maps)
    found = checked(explainer, maps)
    assert found["randomisation_passed"] == Metric(1)
    assert found["randomisation_abs_correlation"].high < 0.4
    assert found["randomisation_over_unrelated"].low > 0.1
    assert "networks with random weights are somewhat similar" in judge_explanations(found)


@pytest.mark.parametrize("constant", ["the maps", "those of random weights"])
def test_constant_maps_do_not_pass_the_randomisation_check(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    maps = np.random.default_rng(0).normal(size=(40, 8, 8)).astype(np.float32)
    ones = np.ones_like(maps)
    randomised_maps(monkeypatch, maps if constant == "the maps" else ones)
    assert checked(explainer, ones if constant == "the maps" else maps) == {}


def test_constant_maps_are_left_out_of_the_randomisation_check(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one network's images and half of another's: the rest are unchanged."""
    maps = np.random.default_rng(0).normal(size=(40, 8, 8)).astype(np.float32)
    randomised = maps.copy()
    randomised[:12] = 1
    randomised_maps(monkeypatch, randomised)
    found = checked(explainer, maps)
    assert found["randomisation_abs_correlation"].value == pytest.approx(1)
    assert found["randomisation_passed"] == Metric(0)


def test_interval_of_randomisation_is_over_networks(
    explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the five networks repeat the maps, three do not: the mean is known badly."""
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 200, 8, 8)).astype(np.float32)
    others[:80] = maps[:80]
    randomised_maps(monkeypatch, others)
    found = checked(explainer, maps)
    each = np.array([1, 1, *(3 * [found["randomisation_abs_correlation"].random])])
    _, low, high = mean_interval(each)
    correlation = found["randomisation_abs_correlation"]
    assert (correlation.low, correlation.high) == pytest.approx((low, high), abs=0.05)
    assert low < 0.5 < high
    assert "randomisation_passed" not in found
    assert "randomisation check inconclusive" in judge_explanations(found)


def test_metrics_of_a_network_are_complete(explainer: Explainer) -> None:
    """Masks are used of correct images only, removal of a random sample."""
    rng = np.random.default_rng(0)
    classes, n = explainer.origin.classes, 12
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    split = Split(images, np.arange(n) % 3, np.arange(n) * 5)
    with torch.no_grad():
        logits = explainer.predict(explainer.normalized(images)).numpy()
    table = predictions_table(logits, split.labels, split.index, classes, None)
    correct = (table.true == table.predicted).to_numpy()
    assert 0 < correct.sum() < n
    explanations = explainer.explain(split, table)
    masks = np.zeros((n, 32, 32), bool)
    masks[correct] = True  # all of a correct image is the object, nothing of others

    def measured(
        table: pd.DataFrame, explanations: Explanations, masks: np.ndarray | None
    ) -> Metrics:
        return quality_metrics(
            explainer, split, table, explanations, masks, removal_images=7, seed=3
        )

    metrics = measured(table, explanations, masks)
    assert finite(metrics)
    assert headline(metrics) == {"road_over_random": metrics["road_over_random"].value}
    assert metrics["explained"] == Metric(n)
    assert metrics["removal_images"] == Metric(7)
    assert {"saco", "sparseness", "max_sensitivity"} <= set(metrics)
    assert metrics["pointing_game"].images == metrics["energy_inside"].images == correct.sum()
    empty = metrics["without_evidence_correct"].value
    assert metrics["pointing_game"].value == round((correct.sum() - empty) / correct.sum(), 4)
    assert len(metrics_table(metrics)) == len(metrics)
    without = measured(table, explanations, None)
    gains = {"pointing_game_over_random", "pointing_game_over_centre"}
    assert set(metrics) - set(without) == {"pointing_game", "energy_inside"} | gains
    assert all(metrics[name] == metric for name, metric in without.items())
