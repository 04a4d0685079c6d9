"""Quality of a model's explanations: the metrics that show how far to trust them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.explanations.baselines import centre_maps, random_maps, shuffled_maps
from cifarpipe.explanations.complexity import sparseness
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.explanations.faithfulness import Floats, Predict, deletion_insertion, road, saco
from cifarpipe.explanations.localisation import energy_inside, pointing_game
from cifarpipe.explanations.randomisation import randomised_network, rank_correlation
from cifarpipe.explanations.robustness import max_sensitivity
from cifarpipe.results.intervals import mean_interval, wilson_interval
from cifarpipe.results.maps import MAX_CORRELATION, Explanations, Maps, without_evidence
from cifarpipe.results.metrics import Metric, Metrics, rounded
from cifarpipe.store.prepared import Split

NETWORKS = 5  # with random weights
SENSITIVITY_RADIUS = 0.02  # largest change of a value in 0 to 1, for max-sensitivity


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
        removal_images: Randomly chosen images, errors and correct ones alike, for all metrics but
            those of evidence and masks.
        seed: Of all random draws.
    """
    correct = (predictions.true == predictions.predicted).to_numpy()
    metrics = evidence_metrics(explanations.predicted, correct)
    if masks is not None:
        positions = split.positions(explanations.index[correct])
        metrics |= mask_metrics(explanations.predicted[correct], masks[positions], seed=seed)
    chosen = np.random.default_rng(seed).permutation(len(split))[:removal_images]
    rows = predictions.iloc[chosen]
    sample = explanations.of(rows["index"].to_numpy())
    maps = sample.predicted
    batch = explainer.normalized(split.images[split.positions(sample.index)])
    classes = torch.from_numpy(explainer.labels(rows.predicted))
    metrics |= removal_metrics(explainer.predict, batch, maps, classes, seed=seed)
    metrics |= complexity_metrics(maps, seed=seed)
    metrics |= robustness_metrics(explainer, batch, maps, classes, seed=seed)
    return metrics | randomisation_metrics(explainer, batch, maps, classes, seed=seed)


def headline(metrics: Metrics) -> dict[str, float | int | str]:
    """Return the metrics that `dvc metrics diff` shows: those of gradcam.json."""
    return {name: metrics[name].value for name in ("road_over_random",) if name in metrics}


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


def mask_metrics(maps: Maps, masks: NDArray[np.bool_], *, seed: int) -> Metrics:
    """Compare maps with the objects' masks, next to uninformative baselines.

    Args:
        maps: `[N, h, w]` raw, of the predicted class of correct images.
        masks: `[N, H, W]`, true on the object.
        seed: Of the random maps.

    Returns:
        `pointing_game` and `energy_inside` with their values for random and centre maps; and the
        gain of the first over these, image by image, with its 95% interval.
    """
    if not len(maps):
        return {}
    pointing = pointing_game(maps, masks)
    low, high = wilson_interval(int(pointing.hits.sum()), len(maps))
    # Drawn, since the maximum of an upsampled random map is not equally often everywhere.
    random = random_maps(maps, np.random.default_rng(seed))
    scores = {
        "value": pointing.hits.astype(np.float64),
        "random": pointing_game(random, masks).hits.astype(np.float64),
        "centre": pointing.centre,
    }
    energy = {
        "value": energy_inside(maps, masks),
        "random": energy_inside(random, masks),
        "centre": energy_inside(centre_maps(maps), masks),
    }
    found = {
        "pointing_game": rounded(**_means(scores), low=low, high=high),
        **_gains("pointing_game", scores),
        "energy_inside": _mean_metric(energy),
    }
    return {name: replace(metric, images=len(maps)) for name, metric in found.items()}


def removal_metrics(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> Metrics:
    """Test whether maps rank pixels by importance, next to uninformative baselines.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]` of `classes`.
        classes: `[N]` whose probability is followed.
        seed: Of the imputation noise, the random maps and the order of equal values.

    Returns:
        `road`, `saco` and `insertion` (higher is better) and `deletion` (lower is better) with
        their values for random and centre maps; and the gain over these, image by image, with its
        95% interval: `road_over_random` and so on. A positive gain is always the better one.
    """
    if not len(maps):
        return {"removal_images": Metric(0)}
    rng = np.random.default_rng(seed)
    kinds = {"value": maps, "random": random_maps(maps, rng), "centre": centre_maps(maps)}
    scores: dict[str, dict[str, Floats]] = {}
    for kind, some in kinds.items():
        deletion, insertion = deletion_insertion(predict, batch, some, classes, seed=seed)
        for name, found in {
            "road": road(predict, batch, some, classes, seed=seed),
            "saco": saco(predict, batch, some, classes, seed=seed),
            "deletion": deletion,
            "insertion": insertion,
        }.items():
            scores.setdefault(name, {})[kind] = found
    metrics = {"removal_images": Metric(len(maps))}
    for name, by_kind in scores.items():
        metrics[name] = rounded(**_means(by_kind))
        metrics |= _gains(name, by_kind, lower_is_better=name == "deletion")
    return metrics


def complexity_metrics(maps: Maps, *, seed: int) -> Metrics:
    """Measure how concentrated maps are, next to uninformative baselines.

    Args:
        maps: `[N, h, w]`.
        seed: Of the random maps.

    Returns:
        `sparseness` (higher is more concentrated) with its 95% interval, and its values for random
        and centre maps.
    """
    if not len(maps):
        return {}
    scores = {
        "value": sparseness(maps),
        "random": sparseness(random_maps(maps, np.random.default_rng(seed))),
        "centre": sparseness(centre_maps(maps)),
    }
    return {"sparseness": _mean_metric(scores)}


def robustness_metrics(
    explainer: Explainer, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> Metrics:
    """Measure how much maps change under small noise, next to uninformative baselines.

    Args:
        explainer: That computed `maps`.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]` of `classes`.
        classes: `[N]`.
        seed: Of the noise and the random maps.

    Returns:
        `max_sensitivity` (lower is better) with its 95% interval, and its values for random maps
        and for centre maps, which never change: 0. Here the random maps have the values of `maps`,
        each time in other places, since the distance depends on the distribution of the values.
    """
    if not len(maps):
        return {}
    rng = np.random.default_rng(seed)
    _, std = explainer.origin.normalization(batch.device)
    radius = SENSITIVITY_RADIUS / std[:, None, None]
    scores = {
        "value": max_sensitivity(
            lambda noisy: explainer.maps_of(noisy, classes), batch, maps, radius, seed=seed
        ),
        "random": max_sensitivity(
            lambda _noisy: shuffled_maps(maps, rng), batch, maps, radius, seed=seed
        ),
        "centre": np.zeros(len(maps)),
    }
    return {"max_sensitivity": _mean_metric(scores)}


def randomisation_metrics(
    explainer: Explainer, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> Metrics:
    """Compare maps with those of random weights: the sanity check of arXiv:1810.03292.

    The images are divided among `NETWORKS` networks with random weights, and the interval is over
    these. Correlations are compared without their sign, since the random weights of a last layer
    may negate every map of a class.

    Args:
        explainer: That computed `maps`.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]` of `classes`.
        classes: `[N]`.
        seed: Of the random weights.

    Returns:
        `randomisation_abs_correlation`, the mean absolute rank correlation with its 95% interval,
        and as `random` that with the random networks' maps of other images, which shows how similar
        unrelated maps are; `randomisation_over_unrelated`, the difference of the two with its
        interval; `randomisation_passed`, 1 if the interval of the first lies below
        `MAX_CORRELATION`, 0 if above. Each is left out if there are too few maps to tell; those
        that are the same everywhere don't count.
    """
    networks = min(NETWORKS, len(maps) // 2)  # an image needs another one
    if not networks:
        return {}
    same, other = [], []
    for number, part in enumerate(np.array_split(np.arange(len(maps)), networks)):
        network = randomised_network(explainer.origin, batch.device, seed, number)
        randomised = replace(explainer, model=network).maps_of(batch[part], classes[part])
        shifted = np.roll(randomised, 1, axis=0)
        same.append(_mean_abs_correlation(maps[part], randomised))
        other.append(_mean_abs_correlation(maps[part], shifted))
    known = ~np.isnan([same, other]).any(axis=0)
    if not known.any():
        return {}
    found, unrelated = np.array(same)[known], np.array(other)[known]
    correlation, low, high = mean_interval(found)
    gain, gain_low, gain_high = mean_interval(found - unrelated)
    metrics = {
        "randomisation_abs_correlation": rounded(
            correlation, low=low, high=high, random=float(unrelated.mean())
        ),
        "randomisation_over_unrelated": rounded(gain, low=gain_low, high=gain_high),
    }
    if high < MAX_CORRELATION or low > MAX_CORRELATION:
        metrics["randomisation_passed"] = Metric(int(high < MAX_CORRELATION))
    return metrics


def _mean_abs_correlation(maps: Maps, others: Maps) -> float:
    """Return the mean absolute rank correlation; NaN if every pair has a constant map."""
    found = np.abs(rank_correlation(maps, others))
    return float(np.nanmean(found)) if not np.isnan(found).all() else np.nan


def _gains(name: str, scores: dict[str, Floats], *, lower_is_better: bool = False) -> Metrics:
    """Return the mean gain of `value` over each baseline, with its interval."""
    gains = {}
    for baseline in ("random", "centre"):
        more = scores["value"] - scores[baseline]
        gain, low, high = mean_interval(-more if lower_is_better else more)
        gains[f"{name}_over_{baseline}"] = rounded(gain, low=low, high=high)
    return gains


def _mean_metric(scores: dict[str, Floats]) -> Metric:
    """Return the mean of each kind of maps' scores, with the interval of `value`."""
    _, low, high = mean_interval(scores["value"])
    return rounded(**_means(scores), low=low, high=high)


def _means(scores: dict[str, Floats]) -> dict[str, float]:
    return {kind: float(score.mean()) for kind, score in scores.items()}
