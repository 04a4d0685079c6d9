"""The figures that say whether a model's explanations can be trusted."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.explanations.explainer import Explained, Explainer
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
from cifarpipe.explanations.gradcam import Maps, without_evidence
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.results.intervals import wilson_interval
from cifarpipe.store.prepared import Split

Figures = dict[str, float | int]
# What reviews should see first: of all figures, those in the metrics file.
HEADLINES = (
    "explained",
    "without_evidence_errors",
    "without_evidence_correct",
    "pointing_game",
    "energy_inside",
    "road_over_random",
    "randomisation_correlation",
)
MOST_ALIKE = 0.5  # rank correlation, of either sign, up to which maps count as other maps


def quality_figures(
    explainer: Explainer,
    split: Split,
    predictions: pd.DataFrame,
    explained: Explained,
    masks: NDArray[np.bool_] | None,
    *,
    removal_images: int,
    seed: int,
) -> Figures:
    """Return all figures of a model's explanations.

    Args:
        explainer: Made `explained`.
        split: The test images.
        predictions: The predictions table.
        explained: Its maps, row by row.
        masks: `[N, H, W]`, true on each test image's object, where it is known.
        removal_images: Images from which pixels are removed, drawn by chance; right or wrong, since
            both kinds are explained.
        seed: Of their choice and of all that knows nothing.
    """
    right = (predictions.true == predictions.predicted).to_numpy()
    figures = evidence_figures(explained.predicted, right)
    if masks is not None:
        places = split.positions(explained.index[right])
        figures |= mask_figures(explained.predicted[right], masks[places])
    chosen = np.random.default_rng(seed).permutation(len(split))[:removal_images]
    rows = predictions.iloc[chosen]
    some = explained.of(rows["index"].to_numpy())
    images, classes = split.images[split.positions(some.index)], explainer.labels(rows.predicted)
    figures |= removal_figures(
        explainer.predict,
        explainer.normalized(images),
        some.predicted,
        torch.tensor(classes),
        seed=seed,
    )
    device = next(explainer.model.parameters()).device
    ignorant = replace(explainer, model=with_random_weights(explainer.origin, device, seed))
    return figures | randomisation_figures(some.predicted, ignorant.maps(images, classes))


def evidence_figures(maps: Maps, right: NDArray[np.bool_]) -> Figures:
    """Count the maps of the predicted class that hold no evidence for it.

    Args:
        maps: `[N, h, w]` raw.
        right: `[N]` whether the prediction is.
    """
    none = without_evidence(maps)
    return {
        "explained": len(maps),
        "without_evidence_errors": int(none[~right].sum()),
        "without_evidence_correct": int(none[right].sum()),
    }


def mask_figures(maps: Maps, masks: NDArray[np.bool_]) -> Figures:
    """Say how well maps meet the objects, beside maps that look at nothing.

    Args:
        maps: `[N, h, w]` raw, of the predicted class on correct images.
        masks: `[N, H, W]`, true on the object.
    """
    pointing = pointing_game(maps, masks)
    low, high = wilson_interval(pointing.hits, pointing.images)
    energy, energy_low, energy_high = mean_interval(energy_inside(maps, masks))
    return {
        "pointing_game_images": pointing.images,
        **_rounded(
            pointing_game=pointing.hits / pointing.images if pointing.images else math.nan,
            pointing_game_low=low,
            pointing_game_high=high,
            pointing_game_centre=pointing.centre,
            pointing_game_random=pointing.random,
            energy_inside=energy,
            energy_inside_low=energy_low,
            energy_inside_high=energy_high,
            energy_inside_centre=mean_interval(energy_inside(centre_maps(maps), masks))[0],
            energy_inside_random=pointing.random,
        ),
    }


def removal_figures(
    predict: Predict, batch: Tensor, maps: Maps, classes: Tensor, *, seed: int
) -> Figures:
    """Say whether maps know which pixels matter, beside maps of the same grid that know nothing.

    Args:
        predict: Logits `[B, classes]` of a normalised batch.
        batch: `[N, 3, S, S]`, normalised.
        maps: `[N, h, w]` of `classes`.
        classes: `[N]` whose probability is followed.
        seed: Of the noise that fills holes, and of the random maps.

    Returns:
        `road` (more is better), `deletion` (less is better) and `insertion` (more is better), each
        of the maps, of `_random` and of `_centre` ones; and ROAD's gain over these, image by image,
        with its 95% interval: `road_over_random`, `road_over_random_low` …
    """
    if not len(maps):
        return {"removal_images": 0}
    rng = np.random.default_rng(seed)
    known: dict[str, Maps] = {
        "": maps, "_random": random_maps(maps, rng), "_centre": centre_maps(maps),
    }  # fmt: skip
    scores = {of: road(predict, batch, some, classes, seed=seed) for of, some in known.items()}
    figures = {f"road{of}": mean_interval(score)[0] for of, score in scores.items()}
    for of in ("_random", "_centre"):
        mean, low, high = mean_interval(scores[""] - scores[of])
        figures |= {f"road_over{of}": mean, f"road_over{of}_low": low, f"road_over{of}_high": high}
    for of, some in known.items():
        deletion, insertion = deletion_insertion(predict, batch, some, classes)
        figures |= {f"deletion{of}": mean_interval(deletion)[0]}
        figures |= {f"insertion{of}": mean_interval(insertion)[0]}
    return {"removal_images": len(maps), **_rounded(**figures)}


def randomisation_figures(maps: Maps, forgotten: Maps) -> Figures:
    """Say how much maps stay what they were when the weights are drawn anew (arXiv:1810.03292).

    Args:
        maps: `[N, h, w]` raw.
        forgotten: The same of the network with random weights.

    Returns:
        Their mean rank correlation with its 95% interval, and whether the check is passed: 1 where
        the whole interval stays within ± `MOST_ALIKE`. What too few maps do not tell is left out.
    """
    mean, low, high = mean_interval(rank_correlation(maps, forgotten))
    figures = _rounded(
        randomisation_correlation=mean,
        randomisation_correlation_low=low,
        randomisation_correlation_high=high,
    )
    if not math.isfinite(high):
        return figures
    return figures | {"randomisation_passed": int(low > -MOST_ALIKE and high < MOST_ALIKE)}


def with_random_weights(origin: Origin, device: torch.device, seed: int) -> nn.Module:
    """Return the same architecture in evaluation mode, having learnt nothing.

    Its weights are not those that training with an equal seed set out from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        network = origin.build()
    return network.to(device).eval()


def _rounded(**figures: float) -> Figures:
    """Round to four places; what has no value, or an interval no ends, is left out."""
    return {name: round(value, 4) for name, value in figures.items() if math.isfinite(value)}
