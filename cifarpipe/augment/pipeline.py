"""All augmentations of a recipe, in the order in which they are applied."""

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
from cifarpipe.config.recipes import Augment, Mix, RandAugmentOptions
from cifarpipe.networks.normalize import standardize, to_unit

NOT_MIXED = Mix(probability=0.0, alpha=1.0)


@dataclass(frozen=True)
class EpochDraws:
    """The random draws for the images of an epoch, in its order."""

    changes: list[Tensor]
    """`[N, …]` for each transform."""
    mixing: MixDraws | None

    def __getitem__(self, some: slice | Tensor) -> "EpochDraws":
        """Return the draws of some images, by their positions in the epoch."""
        mixing = None if self.mixing is None else self.mixing[some]
        return EpochDraws([drawn[some] for drawn in self.changes], mixing)


class Augmentation:
    """The random transforms of a recipe, and normalisation between them, for whole batches."""

    def __init__(
        self,
        recipe: Augment | None,
        *,
        mean: Tensor,
        std: Tensor,
        image_size: int,
        classes: int,
        seed: int,
    ) -> None:
        """Prepare for images of one size.

        Args:
            recipe: Which transforms, how strong; None: normalisation only.
            mean: `[3]`, of values in 0 to 1, on the device of the images.
            std: `[3]`, of values in 0 to 1.
            image_size: Height and width, in pixels.
            classes: Number of classes, for mixing.
            seed: Of what is drawn once per run; what is drawn per epoch has the epoch's generator.
        """
        recipe = recipe or Augment()
        self.device = mean.device
        self.transforms = in_order(recipe, mean, std, image_size, seed)
        self.mixing: Mixing | None = None
        mixup, cutmix = recipe.mixup or NOT_MIXED, recipe.cutmix or NOT_MIXED
        if mixup.probability or cutmix.probability:
            self.mixing = Mixing(
                mixup=mixup.probability,
                mixup_alpha=mixup.alpha,
                cutmix=cutmix.probability,
                cutmix_alpha=cutmix.alpha,
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
            batch_size: Images of a step.
            shown: `[M]` positions in the epoch whose draws are returned; by default all. Mixing
                needs both images of a pair.
        """
        some = slice(None) if shown is None else torch.from_numpy(shown)
        changes = [torch.from_numpy(t.draw(rng, epoch)) for t in self.transforms]
        mixing = self.mixing.draw(rng, epoch, batch_size) if self.mixing else None
        return self._placed(EpochDraws(changes, mixing)[some])

    def _placed(self, drawn: EpochDraws) -> EpochDraws:
        """Return the draws where they are read: most of them on the device."""
        changes = [
            its_draws if transform.on_host else its_draws.to(self.device)
            for transform, its_draws in zip(self.transforms, drawn.changes, strict=True)
        ]
        return EpochDraws(changes, drawn.mixing and drawn.mixing.to(self.device))

    def apply(self, images: Tensor, labels: Tensor, drawn: EpochDraws) -> tuple[Tensor, Tensor]:
        """Transform one or several whole batches.

        Args:
            images: `[B, S, S, 3]` uint8, as they are stored.
            labels: `[B]` int64.
            drawn: For these images.

        Returns:
            `[B, 3, S, S]` float32, normalised, and the targets: the labels unchanged or, if images
            are mixed, class probabilities `[B, classes]` float32.
        """
        changed = images.permute(0, 3, 1, 2)
        if not len(images):  # the batch is too small for every process to get some
            none = (
                labels if self.mixing is None else labels.new_zeros(0, self.mixing.classes).float()
            )
            return changed.float(), none
        for transform, its_draws in zip(self.transforms, drawn.changes, strict=True):
            changed = transform.apply(changed, its_draws)
        if self.mixing is None or drawn.mixing is None:
            return changed, labels
        return self.mixing.apply(changed, labels, drawn.mixing)


def check_sizes(name: str, recipe: Augment | None, image_size: int) -> None:
    """Check that transforms leave something of an image.

    Args:
        name: Of the model.
        recipe: Its transforms, if any.
        image_size: Height and width, in pixels.

    Raises:
        UserError: One is too large for images of this size.
    """
    recipe = recipe or Augment()
    limits = (("crop", recipe.crop, image_size // 2), ("cutout", recipe.cutout, image_size))
    for key, pixels, most in limits:
        if pixels and pixels > most:
            raise UserError(
                f"models.{name}.augment.{key} is {pixels}, and the images are "
                f"{image_size} × {image_size} pixels.\nAllowed: 0 to {most}."
            )


def in_order(recipe: Augment, mean: Tensor, std: Tensor, size: int, seed: int) -> list[Transform]:
    """Return the transforms of a recipe, in the order in which they are applied.

    First crops and flips, on bytes; then RandAugment, whose operations are defined on bytes; then
    those that compute with fractions. Pixels from outside the image are black. Erased pixels get
    the mean colour, since they are erased after normalisation.
    """
    moving: list[Transform] = []
    if recipe.crop:
        moving.append(Crop(recipe.crop))
    if recipe.resized_crop:
        moving.append(ResizedCrop(recipe.resized_crop.scale, recipe.resized_crop.ratio, size))
    if recipe.flip:
        moving.append(RandomFlip() if recipe.flip == "random" else AlternatingFlip(seed))
    if recipe.randaugment and recipe.randaugment.n:
        moving.append(_randaugment(recipe.randaugment, size, mean.device))
    blending: list[Transform] = []
    if recipe.color_jitter and any(recipe.color_jitter.given().values()):
        jitter = recipe.color_jitter
        changes = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        blending.append(ColorJitter(*(change or 0.0 for change in changes)))
    if recipe.rotate:
        blending.append(Rotate(recipe.rotate))
    erasing: list[Transform] = []
    if recipe.erasing and recipe.erasing.probability:
        erasing.append(
            RandomErasing(
                recipe.erasing.probability, recipe.erasing.scale, recipe.erasing.ratio, size
            )
        )
    if recipe.cutout:
        erasing.append(Cutout(recipe.cutout, size))
    return [*moving, ToUnit(), *blending, Standardize(mean, std), *erasing]


def _randaugment(options: RandAugmentOptions, size: int, device: torch.device) -> Transform:
    from cifarpipe.augment import randaugment  # imports torchvision

    names = tuple(name for name in randaugment.OPERATIONS if name not in (options.omit or ()))
    return randaugment.RandAugment(options.n, options.m, names, size, device)


class _WithoutDraws:
    """Base of transforms that treat every image alike."""

    on_host: ClassVar[bool] = False

    def draw(self, _rng: np.random.Generator, epoch: EpochOrder) -> Drawn:
        """Return `[N, 0]`."""
        return np.empty((len(epoch), 0), dtype=np.float32)


class ToUnit(_WithoutDraws):
    """Scale bytes to 0 to 1."""

    def apply(self, images: Tensor, _drawn: Tensor) -> Tensor:
        """Convert `[B, 3, H, W]` uint8 to float32."""
        return to_unit(images)


@dataclass(frozen=True)
class Standardize(_WithoutDraws):
    """Scale each channel to zero mean and unit standard deviation."""

    mean: Tensor
    std: Tensor

    def apply(self, images: Tensor, _drawn: Tensor) -> Tensor:
        """Standardise `[B, 3, H, W]` float, in place."""
        return standardize(images, self.mean, self.std)
