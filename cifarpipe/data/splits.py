"""Stratified sampling: the validation split, and smaller train and test splits."""

import numpy as np
from numpy.typing import NDArray

from cifarpipe.config.errors import UserError
from cifarpipe.data.raw import Labels

Indices = NDArray[np.int64]


def stratified_choice(labels: Labels, size: int, rng: np.random.Generator) -> Indices:
    """Draw `size` positions; every class keeps its fraction, to within one image.

    Args:
        labels: `[N]` class of each image.
        size: How many to draw, at most N.
        rng: Of the draws.

    Returns:
        `[size]` positions in ascending order.
    """
    classes, counts = np.unique(labels, return_counts=True)
    wanted = counts * size / max(len(labels), 1)
    take = np.floor(wanted).astype(np.int64)
    # What rounding leaves over goes to the largest remainders; ties are broken at random.
    order = np.lexsort((rng.random(len(classes)), -(wanted - take)))
    take[order[: size - take.sum()]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:n]
        for label, n in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def split_train(
    labels: Labels, *, val_size: int, train_size: int | None, seed: int
) -> tuple[Indices, Indices]:
    """Hold a validation split out of train, then keep `train_size` of the rest.

    The validation split depends on `seed` and `val_size` alone, not on `train_size`, so that runs
    with different numbers of training images have the same validation images.

    Returns:
        Positions of the train and of the validation images, each in ascending order.

    Raises:
        UserError: There are fewer images than `val_size` and `train_size` require.
    """
    val_seed, train_seed = np.random.SeedSequence(seed).spawn(2)
    available = len(labels)
    if val_size >= available:
        raise UserError(
            f"data.val_size is {val_size}, but train has {available} images.\n"
            f"Allowed: 0 to {available - 1}, so that some are left to train on."
        )
    val = stratified_choice(labels, val_size, np.random.default_rng(val_seed))
    rest = np.setdiff1d(np.arange(available), val)
    if train_size is None:
        return rest, val
    if train_size > len(rest):
        raise UserError(
            f"data.train_size is {train_size}, but train has {available} images, of which "
            f"{val_size} are held out.\nAllowed: 1 to {len(rest)}, or null for all."
        )
    kept = stratified_choice(labels[rest], train_size, np.random.default_rng(train_seed))
    return rest[kept], val


def choose_test(labels: Labels, *, test_size: int | None, seed: int) -> Indices:
    """Select the test images, in their original order.

    Raises:
        UserError: There are fewer than `test_size` images.
    """
    if test_size is None:
        return np.arange(len(labels))
    if test_size > len(labels):
        raise UserError(
            f"data.test_size is {test_size}, but test has {len(labels)} images.\n"
            f"Allowed: 1 to {len(labels)}, or null for all."
        )
    return stratified_choice(labels, test_size, np.random.default_rng([seed, 2]))
