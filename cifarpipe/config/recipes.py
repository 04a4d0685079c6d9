"""How one model is trained: optimizer, schedule, augmentation.

A key that may be left out is off when it is absent. What the values do is written where they are
used, in cifarpipe/augment/ and cifarpipe/training/.
"""

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cifarpipe.config.sections import OFF_IF_ABSENT, Count, Fraction, Probability, Section


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{list(pair)} is not in order; allowed: [smallest, largest]")
    return pair


Area: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Areas: TypeAlias = Annotated[tuple[Area, Area], Field(strict=False), AfterValidator(_ascending)]
Ratios: TypeAlias = Annotated[
    tuple[PositiveFloat, PositiveFloat], Field(strict=False), AfterValidator(_ascending)
]
Betas: TypeAlias = Annotated[tuple[Fraction, Fraction], Field(strict=False)]

RandAugmentOperation: TypeAlias = Literal[
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
    "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
]  # fmt: skip


class RandAugmentOptions(Section):
    """`n` random operations per image (arXiv:1909.13719)."""

    n: Annotated[int, Field(ge=0, le=10)]
    """Operations per image."""
    m: Annotated[int, Field(ge=0, le=30)]
    """Magnitude, 0 to 30."""
    omit: Annotated[tuple[RandAugmentOperation, ...] | None, Field(strict=False), OFF_IF_ABSENT] = (
        None
    )
    """Operations of the standard list that are not used."""

    @model_validator(mode="after")
    def _something_is_left(self) -> "RandAugmentOptions":
        if set(self.omit or ()) == set(get_args(RandAugmentOperation)):
            raise ValueError("`omit` lists every operation, so that none is left")
        return self


class ResizedCrop(Section):
    """Crop a random rectangle and resize it to the image's size."""

    scale: Areas
    """Smallest and largest area, as a fraction of the image's."""
    ratio: Ratios
    """Smallest and largest aspect ratio, width / height."""


class ColorJitter(Section):
    """Random changes of colour."""

    brightness: Annotated[NonNegativeFloat | None, OFF_IF_ABSENT] = None
    """The factor is drawn from 1 ± this, at least 0; likewise for the next two."""
    contrast: Annotated[NonNegativeFloat | None, OFF_IF_ABSENT] = None
    saturation: Annotated[NonNegativeFloat | None, OFF_IF_ABSENT] = None
    hue: Annotated[float | None, Field(ge=0, le=0.5), OFF_IF_ABSENT] = None
    """Largest shift in either direction, in turns of the colour wheel."""


class Erasing(Section):
    """Erase a random rectangle in some images (arXiv:1708.04896)."""

    probability: Probability
    scale: Areas
    """Smallest and largest area, as a fraction of the image's."""
    ratio: Ratios
    """Smallest and largest aspect ratio, height / width."""


class Mix(Section):
    """Mix two images and their labels: mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899)."""

    probability: Probability
    """That an image is mixed in this way."""
    alpha: PositiveFloat
    """The mixing ratio is drawn from Beta(alpha, alpha)."""


class Augment(Section):
    """Random changes of a training image, drawn for every image in every epoch.

    cifarpipe/augment/pipeline.py defines the order in which they are applied.
    """

    crop: Annotated[NonNegativeInt | None, OFF_IF_ABSENT] = None
    """Pixels of black padding on each side before a random crop of the original size."""
    resized_crop: Annotated[ResizedCrop | None, OFF_IF_ABSENT] = None
    flip: Annotated[Literal["random", "alternating"] | None, OFF_IF_ABSENT] = None
    """Horizontal flip: with probability 1/2, or in every second epoch (arXiv:2404.00498)."""
    randaugment: Annotated[RandAugmentOptions | None, OFF_IF_ABSENT] = None
    color_jitter: Annotated[ColorJitter | None, OFF_IF_ABSENT] = None
    rotate: Annotated[float | None, Field(ge=0, le=180), OFF_IF_ABSENT] = None
    """Largest rotation in either direction, in degrees."""
    erasing: Annotated[Erasing | None, OFF_IF_ABSENT] = None
    cutout: Annotated[NonNegativeInt | None, OFF_IF_ABSENT] = None
    """Side of the erased square, in pixels."""
    mixup: Annotated[Mix | None, OFF_IF_ABSENT] = None
    cutmix: Annotated[Mix | None, OFF_IF_ABSENT] = None

    @model_validator(mode="after")
    def _mixed_at_most_once(self) -> "Augment":
        mixup, cutmix = (mix.probability if mix else 0.0 for mix in (self.mixup, self.cutmix))
        if mixup + cutmix > 1:
            raise ValueError(
                f"`mixup.probability` {mixup:g} and `cutmix.probability` {cutmix:g} add up to "
                f"{mixup + cutmix:g}; allowed: at most 1, since an image is mixed in one way only"
            )
        return self


class AdamWOptions(Section):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    name: Literal["adamw"]
    betas: Betas
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]
    """`weights`: kernels only, not biases, norms, class token or positions."""


class SGDOptions(Section):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: bool
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "SGDOptions":
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov: true` needs a `momentum` above 0")
        return self


class MuonOptions(Section):
    """Muon for the hidden kernels, AdamW for all other parameters: cifarpipe/training/muon.py."""

    name: Literal["muon"]
    momentum: Fraction
    nesterov: bool
    betas: Betas
    """Of AdamW."""
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]
    keep_norm: Annotated[bool | None, OFF_IF_ABSENT] = None
    """Keep the norm of every hidden kernel as it was initialised."""


class Plateau(Section):
    """When `schedule: plateau` lowers the learning rate."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """The learning rate is multiplied by this."""
    patience: NonNegativeInt
    """Epochs without a lower validation loss to wait before that."""


class Recipe(Section):
    """How one model is trained; each architecture adds its own keys to these."""

    epochs: PositiveInt
    batch_size: Count
    lr_scale: PositiveFloat
    """The model's peak learning rate is `lr` × this."""
    schedule: Literal["triangular", "onecycle", "cosine", "plateau"]
    warmup: Fraction
    """Fraction of the run in which the learning rate rises to its peak."""
    plateau: Annotated[Plateau | None, OFF_IF_ABSENT] = None
    optimizer: Annotated[AdamWOptions | SGDOptions | MuonOptions, Field(discriminator="name")]
    clip_norm: Annotated[PositiveFloat | None, OFF_IF_ABSENT] = None
    """Largest 2-norm of the gradient of all parameters together."""
    label_smoothing: Annotated[Fraction | None, OFF_IF_ABSENT] = None
    ema: Annotated[Fraction | None, OFF_IF_ABSENT] = None
    """Decay per step of a moving average of the weights; the average is what is kept."""
    augment: Annotated[Augment | None, OFF_IF_ABSENT] = None

    @property
    def architecture(self) -> dict[str, Any]:
        """The keys that define the network, without those that train it."""
        given = self.given()
        return {key: given[key] for key in given if key not in Recipe.model_fields}

    @model_validator(mode="after")
    def _plateau_belongs(self) -> "Recipe":
        if (self.schedule == "plateau") != (self.plateau is not None):
            raise ValueError(
                "`plateau: {factor: …, patience: …}` belongs to `schedule: plateau`: "
                "give both or neither"
            )
        return self
