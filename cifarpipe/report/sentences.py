"""Sentences that summarise the results: the best model, the quality of explanations."""

import pandas as pd

from cifarpipe.results.metrics import Metric, Metrics
from cifarpipe.results.significance import LEVEL

# Metrics whose gains over uninformative maps decide what is said of a model's maps; their titles.
DECISIVE = {
    "road": "ROAD",
    "saco": "SaCo",
    "deletion": "deletion",
    "insertion": "insertion",
    "pointing_game": "pointing game",
}


def verdict(board: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Return a sentence about which model is best, or does not differ significantly from others.

    Args:
        board: The leaderboard.
        pairs: Comparisons of every two models, as by `compare_pairs`.
    """
    best = board.iloc[0]
    score = (
        f"{best.accuracy:.2%} accuracy on {best.images:,} test images "
        f"(95% interval {best.accuracy_low:.2%} to {best.accuracy_high:.2%})"
    )
    others = pairs[(pairs["first"] == best.model) & (pairs.p_holm >= LEVEL)].second
    if len(others):
        correction = f", Holm correction for {len(pairs)} pairs" if len(pairs) > 1 else ""
        return (
            f"{best.model} has {score}; no significant difference from {', '.join(others)} "
            f"(McNemar test, {LEVEL:.0%}{correction})."
        )
    return f"{best.model} {'is best, with' if len(board) > 1 else 'has'} {score}."


def judge_explanations(quality: Metrics) -> str:
    """Return what the quality metrics of a model's explanations mean, in words."""
    titles_of: dict[str, list[str]] = {}  # by the comparison that they share
    for name, title in DECISIVE.items():
        if (lows := _lows_over_baselines(quality, name)) is not None:
            titles_of.setdefault(_compared_with_baselines(*lows), []).append(title)
    parts = [f"{', '.join(titles)}: {comparison}" for comparison, titles in titles_of.items()]
    if "max_sensitivity" in quality:
        change = quality["max_sensitivity"]
        # Shuffled maps change, too, unless all maps are the same everywhere.
        if change.random and (change.high or change.value) >= change.random:
            parts.append(
                "WARNING: under small noise, these maps are not significantly more stable than "
                "shuffled maps"
            )
    if "randomisation_passed" in quality:
        if quality["randomisation_passed"].value:
            resemble = _interval_is_above_0(quality.get("randomisation_over_unrelated"))
            similar = "somewhat similar to these maps"
            if not resemble:
                similar = "not significantly more similar to these maps than unrelated maps are"
            parts.append(f"maps of networks with random weights are {similar}")
        else:
            parts.append(
                "WARNING: networks with random weights give similar maps; do not trust these maps"
            )
    elif "randomisation_abs_correlation" in quality:
        parts.append("randomisation check inconclusive")
    return "; ".join(parts) or "not evaluated"


def _interval_is_above_0(metric: Metric | None) -> bool:
    return metric is not None and metric.low is not None and metric.low > 0


def _compared_with_baselines(low_random: float, low_centre: float) -> str:
    """Say over which baselines maps gain; the lower ends of both gains' intervals decide."""
    if low_random <= 0:
        return "not significantly better than random maps"
    if low_centre <= 0:
        return "better than random maps, but not significantly better than centre maps"
    return "better than random and centre maps"


def _lows_over_baselines(quality: Metrics, name: str) -> tuple[float, float] | None:
    """Return the lower ends of a metric's gain over random and over centre maps, if known."""
    gains = [quality.get(f"{name}_over_{baseline}") for baseline in ("random", "centre")]
    lows = [gain.low for gain in gains if gain is not None and gain.low is not None]
    return (lows[0], lows[1]) if len(lows) == 2 else None
