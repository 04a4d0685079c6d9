"""What differs between two snapshots of the project, and which differences are significant."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cifarpipe.cli.review.snapshot import ModelSnapshot, Snapshot
from cifarpipe.results.metrics import Metrics
from cifarpipe.results.significance import LEVEL, fisher, holm, mcnemar

MAX_CONFUSIONS = 5

Unpaired = Literal["other source", "other images", "not available"]
SOURCE = ("data.source", "data.folder", "data.image_size")  # parameters


@dataclass(frozen=True)
class PredictionChange:
    """How one model's predictions of the same test images differ."""

    broken: pd.DataFrame
    """Rows of the new predictions that were correct before, the most confident first."""
    fixed: pd.DataFrame
    """Rows of the old predictions that are correct now, the most confident first."""
    other: int
    """Images whose prediction differs and is wrong both times."""

    @property
    def differs(self) -> bool:
        """Whether the prediction of any image differs."""
        return bool(len(self.broken) + len(self.fixed) + self.other)


@dataclass(frozen=True)
class ModelChange:
    """How a model that is in both snapshots differs."""

    name: str
    before: Metrics
    after: Metrics
    predictions: PredictionChange | Unpaired
    """Or why the two predictions tables can't be compared image by image."""
    p: float | None
    """P-value of the test whether the accuracies differ: McNemar's exact test, or Fisher's if the
    predictions can't be compared image by image. None if nothing changed that could tell."""
    p_holm: float | None = None
    """Corrected for the number of models that are tested (Holm)."""
    beyond: list[str] = field(default_factory=list)
    """Metrics whose 95% intervals do not overlap."""
    confusions: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Confusions that became more frequent: `true`, `predicted`, `before`, `after`."""

    @property
    def gain(self) -> float:
        """Change in accuracy."""
        return self.after["accuracy"].value - self.before["accuracy"].value

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `no significant difference` or, for every image, `the same`.

        Accuracies on images of different sources are `not comparable`.
        """
        if self.predictions == "other source":
            return "not comparable"
        if isinstance(self.predictions, PredictionChange) and not self.predictions.differs:
            return "the same"
        if self.p_holm is None or self.p_holm >= LEVEL:
            return "no significant difference"
        return "better" if self.gain > 0 else "worse"


def compare_models(before: Snapshot, after: Snapshot) -> list[ModelChange]:
    """Compare the models that are in both snapshots, in the order of the second."""
    unpaired: Unpaired | None = None
    if before.data is None or before.data != after.data:
        other = any(before.params.get(key) != after.params.get(key) for key in SOURCE)
        unpaired = "other source" if other else "other images"
    return _corrected(
        [
            _compare(name, before.models[name], model, unpaired)
            for name, model in after.models.items()
            if name in before.models
        ]
    )


def _corrected(changes: list[ModelChange]) -> list[ModelChange]:
    """Correct the p-values for the number of models that are tested."""
    tested = {change.name: change.p for change in changes if change.p is not None}
    p = dict(zip(tested, holm(np.array(list(tested.values()))).tolist(), strict=True))
    return [replace(change, p_holm=p.get(change.name)) for change in changes]


def _compare(
    name: str, old: ModelSnapshot, new: ModelSnapshot, unpaired: Unpaired | None
) -> ModelChange:
    predictions: PredictionChange | Unpaired
    if unpaired:
        predictions = unpaired
    elif old.predictions is None or new.predictions is None:
        predictions = "not available"
    else:  # the same data may have been split differently
        predictions = compare_predictions(old.predictions, new.predictions) or "other images"
    if predictions == "other source":
        return ModelChange(name, old.metrics, new.metrics, predictions, p=None)
    if isinstance(predictions, PredictionChange):
        broken, fixed = len(predictions.broken), len(predictions.fixed)
        p = mcnemar(broken, fixed) if broken + fixed else None
    else:
        same = old.confusion.equals(new.confusion)
        p = None if same else _unpaired_p(old.confusion, new.confusion)
    return ModelChange(
        name,
        old.metrics,
        new.metrics,
        predictions,
        p,
        beyond=beyond_intervals(old.metrics, new.metrics),
        confusions=worse_confusions(old.confusion, new.confusion),
    )


def _unpaired_p(*confusions: pd.DataFrame) -> float:
    """Return the p-value of Fisher's exact test of the accuracies of two confusion tables."""
    images = [int(table.images.sum()) for table in confusions]
    errors = [int(table.images[table.true != table.predicted].sum()) for table in confusions]
    return fisher((errors[0], errors[1]), (images[0], images[1]))


def compare_predictions(old: pd.DataFrame, new: pd.DataFrame) -> PredictionChange | None:
    """Compare two predictions tables image by image; None if they are of different images."""
    if not (old["index"].equals(new["index"]) and old.true.equals(new.true)):
        return None
    was, now = (table.predicted == table.true for table in (old, new))
    broken = new[was & ~now].sort_values("confidence", ascending=False, kind="stable")
    fixed = old[~was & now].sort_values("confidence", ascending=False, kind="stable")
    other = int((~was & ~now & (old.predicted != new.predicted)).sum())
    return PredictionChange(broken, fixed, other)


def beyond_intervals(old: Metrics, new: Metrics) -> list[str]:
    """Return the metrics whose 95% intervals, before and after, do not overlap."""
    found = []
    for name, after in new.items():
        before = old.get(name)
        if before is None or None in (before.low, before.high, after.low, after.high):
            continue
        assert before.low is not None
        assert before.high is not None
        assert after.low is not None
        assert after.high is not None
        if after.low > before.high or after.high < before.low:
            found.append(name)
    return found


def worse_confusions(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the confusions whose frequency increased most."""
    both = old.merge(new, on=["true", "predicted"], suffixes=("_before", "_after"))
    both = both[both.true != both.predicted].rename(
        columns={"images_before": "before", "images_after": "after"}
    )
    both = both.assign(increase=both.after - both.before)
    worse = both[both.increase > 0].sort_values("increase", ascending=False, kind="stable")
    return worse[:MAX_CONFUSIONS].reset_index(drop=True)


def changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return name, old and new value of everything that differs; None where it is missing."""
    return [
        (name, old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def metric_changes(old: Metrics, new: Metrics) -> list[tuple[str, Any, Any, float | None]]:
    """Return name, old value, new value and change of all metrics that differ.

    The change is None if one of the two is missing.
    """
    values = [{name: metric.value for name, metric in metrics.items()} for metrics in (old, new)]
    return [(name, was, now, _change(was, now)) for name, was, now in changed_values(*values)]


def _change(was: float | None, now: float | None) -> float | None:
    return None if was is None or now is None else round(now - was, 4)
