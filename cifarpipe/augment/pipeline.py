"""All augmentations together: the one place that says in which order they apply."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarpipe.augment.color import ColorJitter
from cifarpipe.augment.erasing import Cutout, RandomErasing
from cifarpipe.augment.geometry import AlternatingFlip, Crop, RandomFlip, ResizedCrop, Rotate
from cifarpipe.augment.mixing import MixDraws, Mixing
from cifarpipe.augment.transform import Drawn, EpochOrder, Transform
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Augment
from cifarpipe.config.schema import RandAugment as Strength
from cifarpipe.networks.normalize import standardize, to_unit


@dataclass(frozen=True)
class EpochDraws:
    """What chance decided for the images of an epoch, in its order."""

    changes: list[Tensor]
    """`[N, …]` for each transform."""
    mixing: MixDraws | None

    def __getitem__(self, some: slice | Tensor) -> "EpochDraws":
        """Return the draws of some images, by their places in the epoch."""
        mixing = None if self.mixing is None else self.mixing[some]
        return EpochDraws([drawn[some] for drawn in self.changes], mixing)


class Augmentation:
    """A recipe's random changes of whole batches, and normalisation amidst them."""

    def __init__(
        self,
        recipe: Augment,
        *,
        mean: Tensor,
        std: Tensor,
        image_size: int,
        classes: int,
        seed: int,
    ) -> None:
        """Prepare for one kind of picture.

        Args:
            recipe: Which changes, how strong.
            mean: `[3]`, in 0 … 1, on the device on which images are changed.
            std: `[3]`, in 0 … 1.
            image_size: Pixels of a side.
            classes: How many there are; mixing needs it.
            seed: Of what is drawn once for a run; what an epoch draws comes from its generator.
        """
        self.device = mean.device
        self.transforms = in_order(recipe, mean, std, image_size, seed)
        self.mixing: Mixing | None = None
        if recipe.mixup.probability or recipe.cutmix.probability:
            self.mixing = Mixing(
                mixup=recipe.mixup.probability,
                mixup_alpha=recipe.mixup.alpha,
                cutmix=recipe.cutmix.probability,
                cutmix_alpha=recipe.cutmix.alpha,
                size=image_size,
                classes=classes,
            )

    def draw(
        self,
        rng: np.random.Generator,
        epoch: EpochOrder,
        batch_size: int,
        shown: NDArray[np.int64] | None = None,
    ) -> EpochDraws:
        """Draw for a whole epoch.

        Args:
            rng: Of the draws.
            epoch: Its images, in order.
            batch_size: Into which it is cut.
            shown: `[M]` places in the epoch whose draws are returned; all where not given. Mixing
                wants both of a pair.
        """
        some = slice(None) if shown is None else torch.from_numpy(shown)
        changes = [torch.from_numpy(t.draw(rng, epoch)) for t in self.transforms]
        mixing = self.mixing.draw(rng, epoch, batch_size) if self.mixing else None
        return self._placed(EpochDraws(changes, mixing)[some])

    def _placed(self, drawn: EpochDraws) -> EpochDraws:
        """Return the draws where they are read: all but a few on the device."""
        changes = [
            its_draws if transform.on_host else its_draws.to(self.device)
            for transform, its_draws in zip(self.transforms, drawn.changes, strict=True)
        ]
        return EpochDraws(changes, drawn.mixing and drawn.mixing.to(self.device))

    def apply(self, images: Tensor, labels: Tensor, drawn: EpochDraws) -> tuple[Tensor, Tensor]:
        """Change one or several whole batches.

        Args:
            images: `[B, S, S, 3]` uint8, as they are stored.
            labels: `[B]` int64.
            drawn: For these images.

        Returns:
            `[B, 3, S, S]` float32, normalised, and the targets: the labels as they were or, where
            images are mixed, probabilities of the classes `[B, classes]` float32.
        """
        changed = images.permute(0, 3, 1, 2)
        if not len(images):  # of a batch too small for every process to get some
            none = (
                labels if self.mixing is None else labels.new_zeros(0, self.mixing.classes).float()
            )
            return changed.float(), none
        for transform, its_draws in zip(self.transforms, drawn.changes, strict=True):
            changed = transform.apply(changed, its_draws)
        if self.mixing is None or drawn.mixing is None:
            return changed, labels
        return self.mixing.apply(changed, labels, drawn.mixing)


def check_strengths(model: str, recipe: Augment, image_size: int) -> None:
    """Refuse changes that would leave nothing of a picture.

    Raises:
        UserError: Something is larger than pictures of `image_size` pixels a side.
    """
    limits = (("crop", recipe.crop, image_size // 2), ("cutout", recipe.cutout, image_size))
    for key, pixels, most in limits:
        if pixels > most:
            raise UserError(
                f"models.{model}.augment.{key} is {pixels}, and pictures have {image_size} pixels "
                f"a side.\nAllowed: 0 … {most}."
            )


def in_order(recipe: Augment, mean: Tensor, std: Tensor, size: int, seed: int) -> list[Transform]:
    """Return the changes that a recipe asks for, in the order in which they apply.

    Whole pixels are moved first, while they are bytes; then RandAugment, whose operations are
    defined on bytes; then what computes with fractions. What comes in from outside the picture is
    black. What is erased becomes the mean, since it is erased after normalisation.
    """
    resized, strength, jitter, erasing = (
        recipe.resized_crop,
        recipe.randaugment,
        recipe.color_jitter,
        recipe.erasing,
    )
    transforms: list[tuple[bool, Transform]] = [
        (recipe.crop > 0, Crop(recipe.crop)),
        (
            resized.scale != (1, 1) or resized.ratio != (1, 1),
            ResizedCrop(resized.scale, resized.ratio, size),
        ),
        (recipe.flip == "random", RandomFlip()),
        (recipe.flip == "alternating", AlternatingFlip(seed)),
        *([(True, _randaugment(strength, size, mean.device))] if strength.n else []),
        (True, ToUnit()),
        (any(jitter.model_dump().values()), ColorJitter(**jitter.model_dump())),
        (recipe.rotate > 0, Rotate(recipe.rotate)),
        (True, Standardize(mean, std)),
        (erasing.probability > 0, RandomErasing(**erasing.model_dump(), size=size)),
        (recipe.cutout > 0, Cutout(recipe.cutout, size)),
    ]
    return [transform for wanted, transform in transforms if wanted]


def _randaugment(strength: Strength, size: int, device: torch.device) -> Transform:
    from cifarpipe.augment.randaugment import (  # and torchvision, which takes a while
        OPERATIONS,
        RandAugment,
    )

    names = tuple(name for name in OPERATIONS if name not in strength.omit)
    return RandAugment(strength.n, strength.m, names, size, device)


class _WithoutDraws:
    """Base of what happens to every image alike."""

    on_host: ClassVar[bool] = False

    def draw(self, _rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 0]`."""
        return np.empty((len(epoch), 0), dtype=np.float32)


class ToUnit(_WithoutDraws):
    """From bytes to 0 … 1."""

    def apply(self, images: Tensor, _drawn: Tensor) -> Tensor:
        """Turn `[B, 3, H, W]` uint8 into float32."""
        return to_unit(images)


@dataclass(frozen=True)
class Standardize(_WithoutDraws):
    """To zero mean and unit deviation of each channel."""

    mean: Tensor
    std: Tensor

    def apply(self, images: Tensor, _drawn: Tensor) -> Tensor:
        """Change `[B, 3, H, W]` float, in place."""
        return standardize(images, self.mean, self.std)
