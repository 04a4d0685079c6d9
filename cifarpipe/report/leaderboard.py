"""The leaderboard: which metrics it has, and a row per model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from cifarpipe.report.study import ModelResults


@dataclass(frozen=True)
class Column:
    """A metric as a column of the leaderboard; all are in `leaderboard.csv`."""

    metric: str
    """As in `metrics.csv`."""
    heading: str
    meaning: str = ""
    """What the heading stands for."""
    percent: bool = False
    always: bool = False
    """Whether the page shows it even if “all metrics” is off."""
    summary: bool = False
    """Whether `summary.md` has it."""
    if_unequal: bool = False
    """Shown only if classes have clearly unequal numbers of test images."""

    def text(self, value: float) -> str:
        """Return a value as the reports show it."""
        return f"{100 * value:.2f}%" if self.percent else f"{value:.4f}"


UNEQUAL = 1.5  # times as many test images of the largest class as of the smallest

# Besides accuracy, errors, validation accuracy, kept epoch, parameters and MACs.
COLUMNS = (
    Column("loss", "loss", "mean negative log-likelihood, nats", always=True, summary=True),
    Column("top2", "top-2", percent=True, summary=True),
    Column(
        "balanced_accuracy",
        "balanced",
        "balanced accuracy: the mean recall of the classes",
        percent=True,
        always=True,
        summary=True,
        if_unequal=True,
    ),
    Column("macro_f1", "macro F1", summary=True),
    Column(
        "ece",
        "ECE",
        "expected calibration error, bins of equal width",
        always=True,
        summary=True,
    ),
    Column("ece_equal_mass", "ECE, mass", "expected calibration error, bins of equal mass"),
    Column("brier", "Brier"),
)


def shown_columns(board: pd.DataFrame, test_images: Sequence[int]) -> list[Column]:
    """Return the columns that a report shows.

    Args:
        board: The leaderboard.
        test_images: How many there are of each class.
    """
    unequal = max(test_images) > UNEQUAL * min(test_images)
    return [
        column
        for column in COLUMNS
        if column.metric in board and (unequal or not column.if_unequal)
    ]


def leaderboard(results: "Sequence[ModelResults]") -> pd.DataFrame:
    """Return a row per model, the most accurate first; `tta_accuracy` if any model has one."""
    rows = []
    for model in results:
        metrics = model.metrics
        accuracy = metrics["accuracy"]
        optional = {
            name: metrics[name].value if name in metrics else None
            for name in ("tta_accuracy", "val_accuracy")
        }
        rows.append(
            {
                "model": model.name,
                "accuracy": accuracy.value,
                "accuracy_low": accuracy.low,
                "accuracy_high": accuracy.high,
                "images": model.images,
                "errors": metrics["errors"].value,
                **{
                    each.metric: metrics[each.metric].value
                    for each in COLUMNS
                    if each.metric in metrics
                },
                **optional,
                "kept_epoch": metrics["kept_epoch"].value,
                "epochs": len(model.history),
                "parameters": model.parameters,
                "macs": model.macs,
            }
        )
    table = pd.DataFrame(rows)
    if table.tta_accuracy.isna().all():
        table = table.drop(columns="tta_accuracy")
    # Accuracies are rounded; numbers of errors tell apart what they do not.
    return table.sort_values("errors", kind="stable", ignore_index=True)
