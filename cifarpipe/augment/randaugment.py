"""RandAugment (arXiv:1909.13719): a few operations per image, drawn from a list.

The operations are torchvision's, with the ranges of its `RandAugment`. An image's operations are
its own draw; images that drew the same one are changed together. Nothing here waits for a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cifarpipe.augment.transform import Drawn, EpochOrder

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
    "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
LEVELS = 31  # of strength: m is 0 … 30, as in torchvision

Operation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RandAugment:
    """Apply `n` operations, drawn with replacement, at strength `m`."""

    n: int
    m: int
    """0 … 30."""
    names: tuple[str, ...]
    """Of the operations to draw from: keys of `operations`."""
    size: int
    """Pixels of a side of the (square) picture."""
    device: torch.device
    """On which the images lie."""
    on_host: ClassVar[bool] = True  # it sorts the images by operation

    @cached_property
    def known(self) -> dict[str, tuple[Operation | None, Operation | None]]:
        """All operations, at this strength."""
        return operations(self.m, self.size, self.device)

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, n]` int8: twice the operation's place in the list, plus 1 to negate it."""
        return rng.integers(0, 2 * len(self.names), (len(epoch), self.n), dtype=np.int8)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change `[B, 3, S, S]` uint8."""
        images = images.clone(memory_format=torch.contiguous_format)
        for column in drawn.numpy().T:
            for code in np.unique(column):
                positive, negative = self.known[self.names[code // 2]]
                operation = negative if code % 2 else positive
                if operation is not None:
                    chosen = _to_device(np.flatnonzero(column == code), images.device)
                    changed = operation(images.index_select(0, chosen))
                    images.index_copy_(0, chosen, changed)
        return images


def operations(
    m: int, size: int, device: torch.device
) -> dict[str, tuple[Operation | None, Operation | None]]:
    """Return the standard operations, each with its opposite: itself where it has no sign.

    Args:
        m: Strength, 0 … 30.
        size: Pixels of a side of the picture.
        device: On which pictures lie.

    Returns:
        Functions of `[K, 3, size, size]` uint8; None changes nothing.
    """

    def strength(most: float) -> float:
        return float(torch.linspace(0, most, LEVELS)[m])  # in 32 bits, as torchvision's

    slope = math.degrees(math.atan(strength(0.3)))
    shift = int(strength(150 / 331 * size))
    angle, change = strength(30.0), strength(0.9)
    bits = 8 - round(strength(4.0))
    threshold = 255 * float(torch.linspace(1, 0, LEVELS)[m])

    def once(operation: Operation | None) -> tuple[Operation | None, Operation | None]:
        return operation, operation

    def factor(adjust: Callable[[Tensor, float], Tensor]) -> tuple[Operation, Operation]:
        return lambda x: adjust(x, 1 + change), lambda x: adjust(x, 1 - change)

    def moved(move: Operation) -> Operation:
        return MovedPixels(move, size, device)

    def shear(x: float, y: float) -> Operation:
        return moved(partial(_affine, translate=[0, 0], shear=[x, y], center=[0, 0]))

    def translate(x: int, y: int) -> Operation:
        return moved(partial(_affine, translate=[x, y], shear=[0.0, 0.0]))

    def turn(degrees: float) -> Operation:
        return moved(partial(tv.rotate, angle=degrees))

    return {
        "identity": once(None),
        "shear_x": (shear(slope, 0.0), shear(-slope, 0.0)),
        "shear_y": (shear(0.0, slope), shear(0.0, -slope)),
        "translate_x": (translate(shift, 0), translate(-shift, 0)),
        "translate_y": (translate(0, shift), translate(0, -shift)),
        "rotate": (turn(angle), turn(-angle)),
        "brightness": factor(tv.adjust_brightness),
        "color": factor(tv.adjust_saturation),
        "contrast": factor(tv.adjust_contrast),
        "sharpness": factor(adjust_sharpness),
        "posterize": once(partial(tv.posterize, bits=bits)),
        "solarize": once(partial(tv.solarize, threshold=threshold)),
        "autocontrast": once(tv.autocontrast),
        "equalize": once(tv.equalize),
    }


_affine = partial(tv.affine, angle=0.0, scale=1.0, interpolation=InterpolationMode.NEAREST)


class MovedPixels:
    """A change that takes each pixel from some place of the same picture, or black from outside.

    torchvision builds the way there from Python numbers at every call, for which a GPU is waited
    for. Here it moves a picture of pixel numbers, once.
    """

    def __init__(self, move: Operation, size: int, device: torch.device) -> None:
        """Find out where pixels come from.

        Args:
            move: torchvision's, with the nearest neighbour; black from outside.
            size: Pixels of a side of the picture.
            device: On which pictures lie.
        """
        numbers = torch.arange(1, size**2 + 1, dtype=torch.float32).view(1, 1, size, size)
        found = move(numbers).flatten().long()
        self.source = (found - 1).clamp(min=0).to(device)
        self.inside = (found > 0).to(torch.uint8).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Move the pixels of `[K, 3, size, size]` uint8."""
        moved = images.flatten(2).index_select(2, self.source).mul_(self.inside)
        return moved.view_as(images)


def adjust_sharpness(images: Tensor, factor: float) -> Tensor:
    """Do as torchvision's of that name, without waiting for a GPU.

    Blurred is the mean over 3 × 3 pixels, the middle counting five times; the border stays.
    """
    sharp = images.float()
    inner = sharp[..., 1:-1, 1:-1]
    blurred = F.avg_pool2d(sharp, 3, stride=1, divisor_override=1).add_(inner, alpha=4)
    blurred.div_(13).round_()  # whole numbers over 13: never halfway between two bytes
    inner.add_(blurred.sub_(inner), alpha=1 - factor)
    return sharp.clamp_(0, 255).to(torch.uint8)


def _to_device(indices: Drawn, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(indices)
    if device.type == "cuda":  # from pinned memory, so that nothing waits for the copy
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
