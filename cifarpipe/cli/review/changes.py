"""What differs between two snapshots of the project, and which of it is more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from cifarpipe.cli.review.snapshot import ModelResult, Snapshot
from cifarpipe.report.comparison import LEVEL, mcnemar

MOST_CONFUSIONS = 5

Unpaired = Literal["other images", "not at hand"]


@dataclass(frozen=True)
class AnswerChange:
    """How one model's answers to the same test images differ."""

    broken: pd.DataFrame
    """Rows of the new predictions that were right before, the surest first."""
    fixed: pd.DataFrame
    """Rows of the old predictions that are right now, the surest first."""
    other: int
    """Images whose prediction differs and is wrong both times."""
    p: float
    """McNemar's exact test of whether accuracy differs."""


@dataclass(frozen=True)
class ModelChange:
    """How one model differs that both snapshots hold."""

    name: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    """Metrics by dotted name."""
    answers: AnswerChange | Unpaired
    """Or why the two tables of predictions can't be compared image by image."""
    beyond: list[str] = field(default_factory=list)
    """Metrics that lie outside each other's intervals."""
    confusions: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Kinds of error that became more frequent: `true`, `predicted`, `before`, `after`."""

    @property
    def verdict(self) -> str:
        """Return `better`, `worse`, `the same` or `a tie`."""
        gain = self.after["accuracy"] - self.before["accuracy"]
        if isinstance(self.answers, AnswerChange):
            if not len(self.answers.broken) + len(self.answers.fixed) + self.answers.other:
                return "the same"
            shown = self.answers.p < LEVEL
        else:
            shown = "accuracy" in self.beyond
        if not shown:
            return "a tie"
        return "better" if gain > 0 else "worse"


def compare_models(before: Snapshot, after: Snapshot) -> list[ModelChange]:
    """Compare the models that both snapshots hold, in the order of the second."""
    same_images = before.data is not None and before.data == after.data
    return [
        _compare(name, before.models[name], model, same_images)
        for name, model in after.models.items()
        if name in before.models
    ]


def _compare(name: str, old: ModelResult, new: ModelResult, same_images: bool) -> ModelChange:
    answers: AnswerChange | Unpaired
    if not same_images:
        answers = "other images"
    elif old.predictions is None or new.predictions is None:
        answers = "not at hand"
    else:  # the same data may have been split otherwise
        answers = compare_answers(old.predictions, new.predictions) or "other images"
    return ModelChange(
        name,
        old.metrics,
        new.metrics,
        answers,
        beyond_intervals(old.metrics, new.metrics),
        worse_confusions(old.confusion, new.confusion),
    )


def compare_answers(old: pd.DataFrame, new: pd.DataFrame) -> AnswerChange | None:
    """Compare two predictions tables image by image; None where they are not of the same images."""
    if not (old["index"].equals(new["index"]) and old.true.equals(new.true)):
        return None
    was, now = (table.predicted == table.true for table in (old, new))
    broken = new[was & ~now].sort_values("confidence", ascending=False, kind="stable")
    fixed = old[~was & now].sort_values("confidence", ascending=False, kind="stable")
    other = int((~was & ~now & (old.predicted != new.predicted)).sum())
    return AnswerChange(broken, fixed, other, mcnemar(len(broken), len(fixed)))


def beyond_intervals(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the metrics whose 95% intervals, before and after, have nothing in common."""
    found = []
    for name in new:
        ends = (f"{name}_low", f"{name}_high")
        if not all(end in values for end in ends for values in (old, new)):
            continue
        (low, high), (new_low, new_high) = ([values[end] for end in ends] for values in (old, new))
        if new_low > high or new_high < low:
            found.append(name)
    return found


def worse_confusions(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the kinds of error that became most more frequent."""
    both = old.merge(new, on=["true", "predicted"], suffixes=("_before", "_after"))
    both = both[both.true != both.predicted].rename(
        columns={"images_before": "before", "images_after": "after"}
    )
    both = both.assign(more=both.after - both.before)
    worse = both[both.more > 0].sort_values("more", ascending=False, kind="stable")
    return worse[:MOST_CONFUSIONS].reset_index(drop=True)


def changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return name, old and new value of what differs; None where one lacks it."""
    return [
        (name, old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def shifts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any, Any]]:
    """Return the metrics that differ, with how far where they are numbers."""
    return [
        (name, was, now, round(now - was, 4) if _numbers(was, now) else None)
        for name, was, now in changed_values(old, new)
    ]


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float | np.number) for value in values)
