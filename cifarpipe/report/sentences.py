"""What can be said about the results in a sentence."""

import pandas as pd

from cifarpipe.results.metrics import Metrics
from cifarpipe.results.significance import LEVEL


def verdict(board: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Return a sentence about which model is best, or with which ones it is tied.

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
            f"(McNemar test, 5%{correction})."
        )
    return f"{best.model} {'is best, with' if len(board) > 1 else 'has'} {score}."


def judge_explanations(quality: Metrics) -> str:
    """Return what the quality metrics of a model's explanations mean, in words."""
    parts = []
    if "road_over_random" in quality and quality["road_over_random"].low is not None:
        low_random, low_centre = (
            quality[f"road_over_{baseline}"].low or 0.0 for baseline in ("random", "centre")
        )
        if low_random <= 0:
            parts.append("not better than random maps at ranking pixels by importance")
        elif low_centre <= 0:
            parts.append("better than random maps, but not than always marking the centre")
        else:
            parts.append("better than random maps and than always marking the centre")
    if "saco_over_random" in quality and (low := quality["saco_over_random"].low) is not None:
        more = "more evidence means" if low > 0 else "more evidence does not mean"
        parts.append(f"{more} more effect on the prediction")
    if "pointing_game" in quality:
        pointing = quality["pointing_game"]
        assert pointing.low is not None
        chance = max(pointing.centre or 0.0, pointing.random or 0.0)
        points = "points" if pointing.low > chance else "does not point"
        parts.append(f"{points} at the object more often than chance or the centre")
    if "max_sensitivity" in quality:
        change = quality["max_sensitivity"]
        assert change.random is not None
        if (change.high or change.number) >= change.random:
            parts.append("WARNING: under small noise they change as much as random maps")
    if "randomisation_passed" in quality:
        if quality["randomisation_passed"].value:
            parts.append("randomised weights give different maps")
        else:
            parts.append("WARNING: randomised weights give similar maps, so do not trust them")
    return "; ".join(parts) or "not evaluated"
