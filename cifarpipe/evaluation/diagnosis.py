"""Whether a network learnt anything at all: where it did not, that is said in words."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

ONE_CLASS = 0.99  # part of all answers that may not be the same class
DIVERGED = 1.1  # times the loss of guessing


def answer_faults(metrics: Mapping[str, Any], confusion: pd.DataFrame) -> list[str]:
    """Say what is wrong with a network's answers to the test images.

    Args:
        metrics: `accuracy` and `accuracy_low`, the lower end of its interval.
        confusion: Columns `true`, `predicted`, `images`.

    Returns:
        Predicates of a sentence about it; none of a network that learnt something.
    """
    true, said = (confusion.groupby(of).images.sum() for of in ("true", "predicted"))
    images = int(true.sum())
    if not images or (true > 0).sum() < 2:
        return []  # there was nothing to tell apart
    faults = []
    chance = true.max() / images
    if metrics["accuracy_low"] <= chance:
        faults.append(f"did not learn: accuracy {metrics['accuracy']:.1%}, chance {chance:.1%}")
    if said.max() >= ONE_CLASS * images > true.max():
        faults.append(f"takes {said.max() / images:.0%} of all images for {said.idxmax()}")
    return faults


def training_faults(history: pd.DataFrame, classes: int) -> list[str]:
    """Say what went wrong in a training that came to its end.

    Args:
        history: A row per epoch, with `train_loss`.
        classes: How many there are.
    """
    guessing = math.log(classes)
    last = history.train_loss.iloc[-1]
    if classes > 1 and last > DIVERGED * guessing:
        return [f"diverged: its training loss ended at {last:.2f}, guessing has {guessing:.2f}"]
    return []
