"""Warnings about a network that may not have learned."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.results.significance import LEVEL, mcnemar

ONE_CLASS = 0.99  # fraction of predictions that must not be of one class
SOME = 5  # test images of a class that is never predicted
MOST_NAMED = 6  # such classes; more are counted
SHUFFLES = 1000  # of the predictions, to test whether they depend on the images
ONE_SIDED_LEVEL = 0.025  # of that test, one-sided, as of one end of a 95% interval
DIVERGED = 1.1  # times the loss of uniform guessing


def learning_warnings(confusion: pd.DataFrame, train_loss: float, classes: int) -> list[str]:
    """Return what suggests that a network has not learned, as predicates of a sentence about it.

    Args:
        confusion: Of the test split: columns `true`, `predicted`, `images`, a row per pair.
        train_loss: Of the last epoch, in nats.
        classes: Number of classes.
    """
    warnings = []
    true, predicted = (confusion.groupby(of).images.sum() for of in ("true", "predicted"))
    images = int(true.sum())
    if images and (true > 0).sum() > 1:  # otherwise there is nothing to tell apart
        right = confusion.true == confusion.predicted
        hits = int(confusion.images[right].sum())
        shuffled = shuffled_hits(true.to_numpy(), predicted.to_numpy())
        # Always predicting the commonest class is right on its images, and only on these.
        common = confusion.true == true.idxmax()
        only_network = int(confusion.images[~common & right].sum())
        only_constant = int(confusion.images[common & ~right].sum())
        differs = mcnemar(only_network, only_constant) < LEVEL
        if (1 + (shuffled >= hits).sum()) / (1 + SHUFFLES) > ONE_SIDED_LEVEL:
            expected = float((true * predicted).sum()) / images**2
            warnings.append(
                f"may not have learned: its accuracy, {hits / images:.1%}, is not significantly "
                f"above {expected:.1%}, that of its predictions in random order"
            )
        elif only_network <= only_constant or not differs:
            than = "significantly less" if differs else "not significantly more"
            warnings.append(
                f"is {than} accurate ({hits / images:.1%}) than always predicting {true.idxmax()} "
                f"({true.max() / images:.1%})"
            )
        if predicted.max() >= ONE_CLASS * images > true.max():
            share = predicted.max() / images
            warnings.append(f"predicts {predicted.idxmax()} for {share:.0%} of all images")
        elif never := list(true.index[(true >= SOME) & (predicted == 0)]):
            names = ", ".join(never) if len(never) <= MOST_NAMED else f"{len(never)} of the classes"
            warnings.append(f"never predicts {names}")
    guessing = math.log(classes)
    if classes > 1 and train_loss > DIVERGED * guessing:
        warnings.append(
            f"diverged: its training loss ended at {train_loss:.2f}; uniform guessing has a loss "
            f"of {guessing:.2f}"
        )
    return warnings


def shuffled_hits(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of correct predictions when they are shuffled among the images.

    Args:
        true: `[classes]`, images of each class.
        predicted: `[classes]`, predictions of each class.

    Returns:
        `[SHUFFLES]`.
    """
    rng = np.random.default_rng(0)
    labels, guesses = (np.repeat(np.arange(len(counts)), counts) for counts in (true, predicted))
    return np.array([(rng.permutation(guesses) == labels).sum() for _ in range(SHUFFLES)])
