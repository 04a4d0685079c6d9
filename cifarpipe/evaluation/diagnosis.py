"""Warnings about a network that may not have learned."""

import math

import pandas as pd

from cifarpipe.results.metrics import Metric

ONE_CLASS = 0.99  # fraction of predictions that must not be of one class
DIVERGED = 1.1  # times the loss of uniform guessing


def learning_warnings(
    accuracy: Metric, confusion: pd.DataFrame, train_loss: float, classes: int
) -> list[str]:
    """Return what suggests that a network has not learned, as predicates of a sentence about it.

    Args:
        accuracy: On the test split, with its interval.
        confusion: Of the test split: columns `true`, `predicted`, `images`.
        train_loss: Of the last epoch, in nats.
        classes: Number of classes.
    """
    warnings = []
    true, predicted = (confusion.groupby(of).images.sum() for of in ("true", "predicted"))
    images = int(true.sum())
    if images and (true > 0).sum() > 1:  # otherwise there is nothing to tell apart
        assert accuracy.low is not None
        constant = true.max() / images
        if accuracy.low <= constant:
            warnings.append(
                f"may not have learned: its accuracy, {accuracy.value:.1%}, is not significantly "
                f"above {constant:.1%}, that of always predicting the most frequent class"
            )
        if predicted.max() >= ONE_CLASS * images > true.max():
            share = predicted.max() / images
            warnings.append(f"predicts {predicted.idxmax()} for {share:.0%} of all images")
    guessing = math.log(classes)
    if classes > 1 and train_loss > DIVERGED * guessing:
        warnings.append(
            f"diverged: its training loss ended at {train_loss:.2f}; guessing has {guessing:.2f}"
        )
    return warnings
