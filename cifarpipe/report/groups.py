"""Groups of test images on which a model does clearly worse than on comparable ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.colors import rgb_to_hsv
from numpy.typing import NDArray
from scipy.stats import hypergeom

from cifarpipe.evaluation.slices import PARTS, image_properties
from cifarpipe.results.intervals import wilson_interval
from cifarpipe.results.significance import LEVEL, holm

SMALLEST = 20  # images of a group, unless it is a class
EXTREMES = {
    "brightness": ("darkest quarter", "brightest quarter"),
    "contrast": ("quarter of least contrast", "quarter of most contrast"),
    "sharpness": ("least sharp quarter", "sharpest quarter"),
}
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")  # each the centre of a sixth
GREY = 0.15  # saturation of the mean colour, below which it has no hue
COLUMNS = [
    "group", "images", "errors", "accuracy", "accuracy_low", "accuracy_high", "elsewhere",
]  # fmt: skip

Members = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Some test images, and those with which they are compared."""

    name: str
    members: Members
    """`[N]`."""
    among: Members
    """`[N]`, the members among them: all images, or those of the same class."""
    smallest: int = SMALLEST
    """Images from which it is tested."""


def image_groups(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> list[Group]:
    """Return the groups by class, by brightness, contrast, sharpness and colour, and by both.

    Args:
        images: `[N, S, S, 3]`.
        labels: `[N]`.
        classes: Names, by label.
    """
    everything = np.ones(len(labels), bool)
    of_class = {name: labels == label for label, name in enumerate(classes)}
    looks = _extremes(images) | _colours(images)
    return [
        *(Group(name, members, everything, smallest=1) for name, members in of_class.items()),
        *(Group(look, members, everything) for look, members in looks.items()),
        *(
            Group(f"{name}, {look}", same & members, same)
            for name, same in of_class.items()
            for look, members in looks.items()
        ),
    ]


def cluster_groups(clusters: NDArray[np.int32], centres: Sequence[int], model: str) -> list[Group]:
    """Return a group for each cluster in a network's features that is not empty.

    Args:
        clusters: `[N]`, the cluster of each image.
        centres: Index, in the source, of the image of each cluster nearest to its centre.
        model: Name of the network.
    """
    everything = np.ones(len(clusters), bool)
    return [
        Group(f"like #{index} in {model}'s features", clusters == number, everything)
        for number, index in enumerate(centres)
        if (clusters == number).any()
    ]


def _extremes(images: NDArray[np.uint8]) -> dict[str, Members]:
    properties = image_properties(images)
    found = {}
    for name, ends in EXTREMES.items():
        order = np.argsort(properties[name].to_numpy(), kind="stable")
        quarters = np.array_split(order, PARTS)
        for end, quarter in zip(ends, (quarters[0], quarters[-1]), strict=True):
            found[end] = np.isin(np.arange(len(images)), quarter)
    return found


def _colours(images: NDArray[np.uint8]) -> dict[str, Members]:
    mean = np.stack([image.mean(axis=(0, 1)) for image in images]) / 255
    hue, saturation, _ = rgb_to_hsv(mean).T
    sixth = np.floor(hue * len(HUES) + 0.5).astype(int) % len(HUES)
    found = {f"mostly {name}": (sixth == i) & (saturation >= GREY) for i, name in enumerate(HUES)}
    return {"mostly grey": saturation < GREY, **found}


def weak_groups(groups: Sequence[Group], is_correct: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the groups with more errors than chance explains.

    Each group is compared with the other images it is among, by Fisher's exact test, one-sided; the
    p-values are corrected (Holm) for the number of groups that could be significant.

    Args:
        groups: Left out are those with fewer images than their `smallest`, without others, and
            those that could not be significant, whatever images the errors were.
        is_correct: `[N]` whether each prediction is correct.

    Returns:
        Columns `group`, `images`, `errors`, `accuracy` with its 95% interval (`accuracy_low`,
        `accuracy_high`), `elsewhere` (accuracy of those it is compared with) and `p_holm`; the
        group with most errors beyond the rate elsewhere first.
    """
    rows, p = [], []
    for group in groups:
        images, compared = int(group.members.sum()), int(group.among.sum())
        if images < group.smallest or images == compared:
            continue
        errors = int((group.members & ~is_correct).sum())
        all_errors = int((group.among & ~is_correct).sum())
        most = min(images, all_errors)
        if hypergeom.sf(most - 1, compared, all_errors, images) > LEVEL / len(groups):
            continue  # it would only make the correction stricter for others (doi:10.2307/2531456)
        low, high = wilson_interval(images - errors, images)
        elsewhere = 1 - (all_errors - errors) / (compared - images)
        rows.append([group.name, images, errors, 1 - errors / images, low, high, elsewhere])
        p.append(float(hypergeom.sf(errors - 1, compared, all_errors, images)))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = holm(np.array(p))
    beyond = table.errors - table.images * (1 - table.elsewhere)
    order = np.argsort(-beyond.to_numpy(float), kind="stable")
    found = table.iloc[order[(table.p_holm < LEVEL).to_numpy()[order]]]
    p_values = [float(f"{value:.3g}") for value in found.p_holm]
    return found.round(4).assign(p_holm=p_values).reset_index(drop=True)
