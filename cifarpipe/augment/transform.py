"""The interface of all augmentations: a random draw per image, and its effect on a batch."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

Drawn: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class EpochOrder:
    """The images of an epoch, in the order in which they are shown."""

    number: int
    """Of the epoch, from 1."""
    images: npt.NDArray[np.int64]
    """`[N]` indices into the split."""

    def __len__(self) -> int:
        return len(self.images)


class Transform(Protocol):
    """A random transform of images.

    Drawing and applying are separate: all draws of an epoch are made in advance, on the host, from
    one generator. They depend neither on the device nor on the number of images per call.
    """

    on_host: ClassVar[bool]
    """Whether `apply` reads the draws on the host; otherwise they are on the images' device."""

    def draw(self, rng: np.random.Generator, epoch: EpochOrder, /) -> Drawn:
        """Return `[N, …]`: the random draw of each image of the epoch."""
        ...

    def apply(self, images: Tensor, drawn: Tensor, /) -> Tensor:
        """Return `[B, 3, H, W]`, transformed by the draws `[B, …]`; may work in place."""
        ...


def first_chosen(values: Drawn, chosen: Drawn) -> Drawn:
    """Return the first chosen value of each row of `[N, K]`; the first value if none is chosen."""
    return np.take_along_axis(values, chosen.argmax(axis=1)[:, None], axis=1)[:, 0]


def log_uniform(
    rng: np.random.Generator, limits: tuple[float, float], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Draw ratios whose logarithm is uniform, so that r and 1 / r are equally likely."""
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), shape))
