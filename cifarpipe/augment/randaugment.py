"""RandAugment (arXiv:1909.13719): random operations per image, drawn from a list.

The operations and their ranges are those of torchvision's `RandAugment`, but each image has its own
draw. Images with the same operation are transformed together. Nothing here synchronises with a GPU.
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
LEVELS = 31  # of magnitude: m is 0 to 30, as in torchvision

Operation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RandAugment:
    """Apply `n` operations, drawn with replacement, at magnitude `m`."""

    n: int
    m: int
    """Magnitude, 0 to 30."""
    names: tuple[str, ...]
    """The operations to draw from: keys of `operations`."""
    size: int
    """Height and width of the images, in pixels."""
    device: torch.device
    """Of the images."""
    on_host: ClassVar[bool] = True  # the host groups the images by operation

    @cached_property
    def known(self) -> dict[str, tuple[Operation | None, Operation | None]]:
        """All operations at this magnitude."""
        return operations(self.m, self.size, self.device)

    def draw(self, rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, n]` int8: 2 × the operation's position in the list, plus 1 if negative."""
        return rng.integers(0, 2 * len(self.names), (len(epoch), self.n), dtype=np.int8)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change `[B, 3, S, S]` uint8."""
        for column in drawn.numpy().T:
            # Sorted by operation and back again: on a GPU, writing to chosen rows is slow if it
            # has to be deterministic.
            order = np.argsort(column, kind="stable")
            codes, starts = np.unique(column[order], return_index=True)
            together = images.index_select(0, _to_device(order, images.device))
            parts = together.tensor_split(starts[1:].tolist())
            changed = [self._operate(int(code), x) for code, x in zip(codes, parts, strict=True)]
            back = _to_device(np.argsort(order), images.device)
            images = torch.cat(changed).index_select(0, back)
        return images.contiguous()

    def _operate(self, code: int, images: Tensor) -> Tensor:
        """Apply the operation of a drawn code."""
        positive, negative = self.known[self.names[code // 2]]
        operation = negative if code % 2 else positive
        return images if operation is None else operation(images)


def operations(
    m: int, size: int, device: torch.device
) -> dict[str, tuple[Operation | None, Operation | None]]:
    """Return the standard operations, each as a pair: positive and negative.

    An operation without a sign is given twice.

    Args:
        m: Magnitude, 0 to 30.
        size: Height and width of the images, in pixels.
        device: Of the images.

    Returns:
        Functions of `[K, 3, size, size]` uint8; None is the identity.
    """

    def strength(most: float) -> float:
        return _level(0, most, m)

    slope = math.degrees(math.atan(strength(0.3)))
    shift = int(strength(150 / 331 * size))
    angle, change = strength(30.0), strength(0.9)
    bits = 8 - round(strength(4.0))
    threshold = 255 * _level(1, 0, m)

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


def _level(first: float, last: float, m: int) -> float:
    """Return `torch.linspace(first, last, LEVELS)[m]`, which torchvision uses, without a tensor."""
    first, last = float(np.float32(first)), float(np.float32(last))
    step = float(np.float32((last - first) / (LEVELS - 1)))
    from_last = LEVELS - 1 - m
    value = first + step * m if m < from_last else last - step * from_last
    return float(np.float32(value))


_affine = partial(tv.affine, angle=0.0, scale=1.0, interpolation=InterpolationMode.NEAREST)


class MovedPixels:
    """A geometric operation as a lookup table: the source of each pixel, or black.

    torchvision computes its sampling grid from Python numbers in every call, which synchronises
    with a GPU. Here the operation is applied once, to an image of pixel numbers.
    """

    def __init__(self, move: Operation, size: int, device: torch.device) -> None:
        """Compute the source of each pixel.

        Args:
            move: torchvision's operation, nearest neighbour; pixels from outside are black.
            size: Height and width of the images, in pixels.
            device: Of the images.
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
    """Equal torchvision's function of this name, without synchronising with a GPU.

    The blurred image is the mean over 3 × 3 pixels, with weight 5 for the centre; the border is not
    changed.
    """
    sharp = images.float()
    inner = sharp[..., 1:-1, 1:-1]
    blurred = F.avg_pool2d(sharp, 3, stride=1, divisor_override=1).add_(inner, alpha=4)
    blurred.div_(13).round_()  # multiples of 1/13 are never halfway between integers
    inner.add_(blurred.sub_(inner), alpha=1 - factor)
    return sharp.clamp_(0, 255).to(torch.uint8)


def _to_device(indices: Drawn, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(indices)
    if device.type == "cuda":  # the copy from pinned memory is asynchronous
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
