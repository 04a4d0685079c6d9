"""What every augmentation is: a draw for each image of an epoch, and its effect on a batch."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

Drawn: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class EpochOrder:
    """Which images an epoch shows, one after another."""

    number: int
    """Of the epoch, from 1."""
    images: npt.NDArray[np.int64]
    """`[N]`, indices into the split."""

    def __len__(self) -> int:
        return len(self.images)


class Transform(Protocol):
    """A random change of images.

    Chance is apart from its effect: all of an epoch's draws are made beforehand, on the host, from
    one generator, so that they depend neither on the device nor on how many images it takes at a
    time.
    """

    on_host: ClassVar[bool]
    """Whether `apply` reads the draws on the host; else they lie on the images' device."""

    def draw(self, rng: np.random.Generator, epoch: EpochOrder, /) -> Drawn:
        """Return `[N, …]`: what happens to each of the epoch's images."""
        ...

    def apply(self, images: Tensor, drawn: Tensor, /) -> Tensor:
        """Return `[B, 3, H, W]`, changed as drawn for these images `[B, …]`; may work in place."""
        ...


def first_chosen(values: Drawn, chosen: Drawn) -> Drawn:
    """Return of each row of `[N, K]` the first value that is chosen, the first where none is."""
    return np.take_along_axis(values, chosen.argmax(axis=1)[:, None], axis=1)[:, 0]


def log_uniform(
    rng: np.random.Generator, limits: tuple[float, float], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Draw ratios so that twice as much is as likely as half as much."""
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), shape))
