"""Quality of a model's explanations: the metrics that show how far to trust them."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.explainer import Explainer
from cifarpipe.explanations.faithfulness import (
    Predict,
    centre_maps,
    deletion_insertion,
    energy_inside,
    mean_interval,
    pointing_game,
    random_maps,
    rank_correlation,
    road,
)
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.results.intervals import wilson_interval
from cifarpipe.results.maps import Explanations, Maps, without_evidence
from cifarpipe.results.metrics import Metric, Metrics, rounded
from cifarpipe.store.prepared import Split

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

HEADLINE = "road_over_random"  # the metric that a review shows first: that of gradcam.json
MAX_CORRELATION = 0.5  # rank correlation, of either sign, up to which maps count as different


def quality_metrics(
    explainer: Explainer,
    split: Split,
    predictions: pd.DataFrame,
    explanations: Explanations,
    masks: NDArray[np.bool_] | None,
    *,
    removal_images: int,
    seed: int,
) -> Metrics:
    """Return all metrics of a model's explanations.

    Args:
        explainer: That computed `explanations`.
        split: The test images.
        predictions: The predictions table.
        explanations: Of all its rows.
        masks: `[N, H, W]`, true on each test image's object, if known.
        removal_images: Randomly chosen images from which pixels are removed, errors and correct
            ones alike.
        seed: For sampling, imputation noise and random baselines.
    """
    correct = (predictions.true == predictions.predicted).to_numpy()
    metrics = evidence_metrics(explanations.predicted, correct)
    if masks is not None:
        positions = split.positions(explanations.index[correct])
        metrics |= mask_metrics(explanations.predicted[correct], masks[positions])
    chosen = np.random.default_rng(seed).permutation(len(split))[:removal_images]
    rows = predictions.iloc[chosen]
    sample = explanations.of(rows["index"].to_numpy())
    images, classes = split.images[split.positions(sample.index)], explainer.labels(rows.predicted)
    metrics |= removal_metrics(
        explainer.predict,
        explainer.normalized(images),
        sample.predicted,
        torch.tensor(classes),
        seed=seed,
    )
    device = next(explainer.model.parameters()).device
    randomised = replace(explainer, model=randomised_network(explainer.origin, device, seed))
    return metrics | randomisation_metrics(sample.predicted, randomised.maps(images, classes))


def evidence_metrics(maps: Maps, correct: NDArray[np.bool_]) -> Metrics:
    """Count the maps of the predicted class that hold no evidence for it.

    Args:
        maps: `[N, h, w]` raw.
        correct: `[N]` whether each prediction is correct.
    """
    empty = without_evidence(maps)
    return {
        "explained": Metric(len(maps)),
        "without_evidence_errors": Metric(int(empty[~correct].sum())),
        "without_evidence_correct": Metric(int(empty[correct].sum())),
    }


def mask_metrics(maps: Maps, masks: NDArray[np.bool_]) -> Metrics:
    """Compare maps with the objects' masks, next to uninformative baselines.

    Args:
        maps: `[N, h, w]` raw, of the predicted class of correct images.
        masks: `[N, H, W]`, true on the object.
    """
    if not len(maps):
        return {}
    pointing = pointing_game(maps, masks)
    low, high = wilson_interval(pointing.hits, pointing.images)
    baselines = {"random": pointing.random, "centre": pointing.centre}
    energy, energy_low, energy_high = mean_interval(energy_inside(maps, masks))
    energy_baselines = {
        "random": pointing.random,
        "centre": mean_interval(energy_inside(centre_maps(maps), masks))[0],
    }
    found = {
        "pointing_game": rounded(pointing.hits / pointing.images, low=low, high=high, **baselines),
        "energy_inside": rounded(energy, low=energy_low, high=energy_high, **energy_baselines),
    }
    return {name: replace(metric, images=pointing.images) for name, metric in found.items()}


def removal_metrics(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> Metrics:
    """Test whether maps rank pixels by importance, next to uninformative baselines.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]` of `classes`.
        classes: `[N]` whose probability is followed.
        seed: Of the imputation noise and the random maps.

    Returns:
        `road` (higher is better), `deletion` (lower is better) and `insertion` (higher is better)
        with their values for random and centre maps; and ROAD's gain over these, image by image,
        with its 95% interval: `road_over_random`, `road_over_centre`.
    """
    if not len(maps):
        return {"removal_images": Metric(0)}
    rng = np.random.default_rng(seed)
    kinds = {"value": maps, "random": random_maps(maps, rng), "centre": centre_maps(maps)}
    scores = {kind: road(predict, batch, some, classes, seed=seed) for kind, some in kinds.items()}
    metrics = {"removal_images": Metric(len(maps)), "road": _means(scores)}
    for baseline in ("random", "centre"):
        gain, low, high = mean_interval(scores["value"] - scores[baseline])
        metrics[f"road_over_{baseline}"] = rounded(gain, low=low, high=high)
    curves = {
        kind: deletion_insertion(predict, batch, some, classes) for kind, some in kinds.items()
    }
    metrics["deletion"] = _means({kind: deletion for kind, (deletion, _) in curves.items()})
    metrics["insertion"] = _means({kind: insertion for kind, (_, insertion) in curves.items()})
    return metrics


def randomisation_metrics(maps: Maps, randomised: Maps) -> Metrics:
    """Compare maps with those of randomised weights: the sanity check of arXiv:1810.03292.

    Args:
        maps: `[N, h, w]` raw.
        randomised: Of the network with randomised weights.

    Returns:
        The mean rank correlation with its 95% interval, and whether the check is passed: 1 if the
        whole interval lies within ± `MAX_CORRELATION`. Left out if there are too few maps.
    """
    correlation, low, high = mean_interval(rank_correlation(maps, randomised))
    if not math.isfinite(correlation):
        return {}
    metrics = {"randomisation_correlation": rounded(correlation, low=low, high=high)}
    if math.isfinite(high):
        passed = low > -MAX_CORRELATION and high < MAX_CORRELATION
        metrics["randomisation_passed"] = Metric(int(passed))
    return metrics


def randomised_network(origin: Origin, device: torch.device, seed: int) -> "Classifier":
    """Return the same architecture with randomised weights, in evaluation mode.

    These are not the initial weights of a training with the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        network = origin.build()
    return network.to(device).eval()


def _means(scores: dict[str, NDArray[np.float64]]) -> Metric:
    means = {kind: mean_interval(score)[0] for kind, score in scores.items()}
    return rounded(**means)
