"""Warnings about a network that may not have learned."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.config.messages import listed
from cifarpipe.results.metrics import Metric

ONE_CLASS = 0.99  # fraction of predictions that must not be of one class
SOME = 5  # test images of a class that is never predicted
SIGNIFICANT = 1.96  # standard deviations: 95% of a normal distribution are nearer to its mean
ROUNDING = 1e-6  # above the error of a sum of fractions
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
        shuffled, deviation = shuffled_accuracy(true.to_numpy(), predicted[true.index].to_numpy())
        constant = true.max() / images
        hits = int(confusion.images[confusion.true == confusion.predicted].sum())
        # In images: the accuracy is rounded.
        if hits <= images * (shuffled + SIGNIFICANT * deviation) + ROUNDING:
            warnings.append(
                f"may not have learned: its accuracy, {accuracy.value:.1%}, is not significantly "
                f"above {shuffled:.1%}, that of its predictions in random order"
            )
        elif accuracy.low <= constant:
            warnings.append(
                f"is not significantly more accurate ({accuracy.value:.1%}) than always predicting "
                f"{true.idxmax()} ({constant:.1%})"
            )
        if predicted.max() >= ONE_CLASS * images > true.max():
            share = predicted.max() / images
            warnings.append(f"predicts {predicted.idxmax()} for {share:.0%} of all images")
        elif never := list(true.index[(true >= SOME) & (predicted[true.index] == 0)]):
            warnings.append(f"never predicts {listed(never)}")
    guessing = math.log(classes)
    if classes > 1 and train_loss > DIVERGED * guessing:
        warnings.append(
            f"diverged: its training loss ended at {train_loss:.2f}; guessing has {guessing:.2f}"
        )
    return warnings


def shuffled_accuracy(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and standard deviation of the accuracy of predictions in random order.

    Args:
        true: `[classes]`, images of each class.
        predicted: `[classes]`, predictions of each class.
    """
    n = float(true.sum())
    products = true.astype(np.float64) * predicted
    if n < 2:
        return float(products.sum()), 0.0
    # The variance of each class's hits, which are hypergeometric, and the covariances of two.
    own = (products * (n - true) * (n - predicted)).sum()
    both = products.sum() ** 2 - (products**2).sum()
    variance = (own + both) / (n**2 * (n - 1))
    return float(products.sum() / n**2), float(variance**0.5 / n)
