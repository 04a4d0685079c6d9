"""What the stages found out about each model, and what may be said of it in a sentence."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.report.comparison import LEVEL, mcnemar
from cifarpipe.results.maps import CLASS_AGNOSTIC

TOP_CONFUSIONS = 5


@dataclass(frozen=True)
class ModelResults:
    """All that the stages found out about one model, as they wrote it."""

    name: str
    arch: str
    method: str
    """Of its explanations."""
    metrics: dict[str, Any]
    cost: dict[str, Any]
    gradcam: dict[str, Any]
    history: pd.DataFrame
    layers: pd.DataFrame
    per_class: pd.DataFrame
    calibration: pd.DataFrame
    slices: pd.DataFrame
    confusion: pd.DataFrame
    """Columns `true`, `predicted`, `images`."""
    misclassified: pd.DataFrame
    correct: pd.DataFrame
    predictions: pd.DataFrame
    """A row per test image."""
    predicted_maps: NDArray[np.float32]
    """`[N, h, w]` in the order of `predictions`: raw evidence for the predicted class."""
    true_maps: NDArray[np.float32]
    """`[N, h, w]` for the true class."""

    def __post_init__(self) -> None:
        """Check that all tables tell of the same images."""
        wrong = self.confusion.images[self.confusion.true != self.confusion.predicted]
        tabled = (self.predictions.true != self.predictions.predicted).sum()
        assert self.metrics["errors"] == wrong.sum() == tabled, (
            f"{self.name}: metrics, confusions and predictions do not tell of the same errors"
        )
        maps = len(self.predicted_maps), len(self.true_maps)
        assert maps == (self.images, self.images), f"{self.name}: maps are missing"

    @property
    def images(self) -> int:
        """How many test images there are."""
        return int(self.confusion.images.sum())

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return `[N]` whether each prediction is."""
        return (self.predictions.true == self.predictions.predicted).to_numpy()

    @property
    def class_specific(self) -> bool:
        """Return whether the maps are of a class each, not of what matters to any."""
        return self.method not in CLASS_AGNOSTIC

    def matrix(self, classes: list[str]) -> NDArray[np.int64]:
        """Return the confusion counts `[classes, classes]`, rows true, columns predicted."""
        return self.confusion.images.to_numpy().reshape(len(classes), len(classes))

    def top_confusions(self) -> list[dict[Hashable, Any]]:
        """Return the most frequent kinds of error: `true`, `predicted`, `images`."""
        wrong = self.confusion[self.confusion.true != self.confusion.predicted]
        wrong = wrong[wrong.images > 0].sort_values("images", ascending=False, kind="stable")
        return wrong[:TOP_CONFUSIONS].to_dict("records")


def leaderboard(results: list[ModelResults]) -> pd.DataFrame:
    """Return a row per model, the most accurate first; `tta_accuracy` where a model has one."""
    figures = ("loss", "top2", "macro_f1", "ece", "ece_equal_mass", "brier")
    rows = [
        {
            "model": model.name,
            **{key: model.metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high")},
            "errors": model.metrics["errors"],
            "images": model.images,
            **{key: model.metrics[key] for key in figures},
            "tta_accuracy": model.metrics.get("tta_accuracy"),
            "val_accuracy": model.metrics["val_accuracy"],
            "kept_epoch": model.metrics["kept_epoch"],
            "epochs": len(model.history),
            "parameters": model.cost["parameters"],
            "macs": model.cost["macs"],
        }
        for model in results
    ]
    table = pd.DataFrame(rows)
    if table.tta_accuracy.isna().all():
        table = table.drop(columns="tta_accuracy")
    return table.sort_values("accuracy", ascending=False, kind="stable", ignore_index=True)


def verdict(board: pd.DataFrame, right: Mapping[str, NDArray[np.bool_]]) -> str:
    """Say in a sentence which model is best, or that it can't be told from the next ones.

    Args:
        board: The leaderboard.
        right: `[N]` of each model, whether its predictions on the test images are.
    """
    best = board.iloc[0]
    figure = (
        f"{best.accuracy:.2%} of {best.images:,} test images right "
        f"(95% interval {best.accuracy_low:.2%} to {best.accuracy_high:.2%})"
    )
    ours = right[best.model]
    tied = [
        name
        for name in board.model[1:]
        if mcnemar(int((ours & ~right[name]).sum()), int((right[name] & ~ours).sum())) >= LEVEL
    ]
    if tied:
        return (
            f"{best.model} has {figure}; {' and '.join(tied)} can't be told from it: a tie "
            f"(McNemar's test, 5%)."
        )
    return f"{best.model} {'leads with' if len(board) > 1 else 'has'} {figure}."


def judge_explanations(gradcam: Mapping[str, Any]) -> str:
    """Say in words what the figures of a model's explanations allow to believe."""
    said = []
    if "road_over_random_low" in gradcam:
        if gradcam["road_over_random_low"] <= 0:
            said.append("not better than random maps at naming the pixels that matter")
        elif gradcam["road_over_centre_low"] <= 0:
            said.append("better than random maps, not than always looking at the middle")
        else:
            said.append("better than random maps and than always looking at the middle")
    if "pointing_game_low" in gradcam:
        ignorant = max(gradcam["pointing_game_centre"], gradcam["pointing_game_random"])
        finds = "points" if gradcam["pointing_game_low"] > ignorant else "does not point"
        said.append(f"{finds} at the object more often than chance or the middle")
    if "randomisation_passed" in gradcam:
        if gradcam["randomisation_passed"]:
            said.append("other weights give other maps")
        else:
            said.append("WARNING: random weights give much the same maps, so do not trust them")
    return "; ".join(said) or "not put to the test"
