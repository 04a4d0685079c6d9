"""Stratified choices of images: which are held out, which are left out."""

import numpy as np
from numpy.typing import NDArray

from cifarpipe.config.errors import UserError
from cifarpipe.data.raw import Labels

Indices = NDArray[np.int64]


def stratified_choice(labels: Labels, size: int, rng: np.random.Generator) -> Indices:
    """Choose `size` positions such that every class keeps its share, to within one image.

    Args:
        labels: `[N]` class of each image.
        size: How many to choose, at most N.
        rng: Of the draws.

    Returns:
        `[size]` positions in rising order.
    """
    classes, counts = np.unique(labels, return_counts=True)
    wanted = counts * size / max(len(labels), 1)
    take = np.floor(wanted).astype(np.int64)
    # What rounding left over goes to the largest remainders; ties are drawn.
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

    The held-out images depend on `seed` and `val_size` alone, not on `train_size`, so that runs on
    more or fewer images are measured on the same ones.

    Returns:
        Positions to train on and positions held out, each in rising order.

    Raises:
        UserError: There are fewer images than asked for.
    """
    val_seed, train_seed = np.random.SeedSequence(seed).spawn(2)
    available = len(labels)
    if val_size >= available:
        raise UserError(
            f"data.val_size is {val_size}, and train has {available} images.\n"
            f"Allowed: 0 to {available - 1}, so that some are left to train on."
        )
    val = stratified_choice(labels, val_size, np.random.default_rng(val_seed))
    rest = np.setdiff1d(np.arange(available), val)
    if train_size is None:
        return rest, val
    if train_size > len(rest):
        raise UserError(
            f"data.train_size is {train_size}, and {len(rest)} of train's {available} images are "
            f"left beside the {val_size} held out.\nAllowed: 1 to {len(rest)}, or null for all."
        )
    kept = stratified_choice(labels[rest], train_size, np.random.default_rng(train_seed))
    return rest[kept], val


def choose_test(labels: Labels, *, test_size: int | None, seed: int) -> Indices:
    """Choose the test images, in their original order.

    Raises:
        UserError: There are fewer images than asked for.
    """
    if test_size is None:
        return np.arange(len(labels))
    if test_size > len(labels):
        raise UserError(
            f"data.test_size is {test_size}, and test has {len(labels)} images.\n"
            f"Allowed: 1 to {len(labels)}, or null for all."
        )
    return stratified_choice(labels, test_size, np.random.default_rng([seed, 2]))
