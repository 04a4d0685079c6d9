"""The keys of each architecture, besides those of its recipe; `arch` tells them apart.

A new architecture needs a class here and a place in `ModelEntry`. The keys are the arguments of the
network's constructor.
"""

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from cifarpipe.config.recipes import Recipe
from cifarpipe.config.sections import OFF_IF_ABSENT, Fraction


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even; allowed: 1, 3, 5, 7 …")
    return value


OddInt: TypeAlias = Annotated[PositiveInt, AfterValidator(_odd)]


class ViTEntry(Recipe):
    """Vision transformer whose linear layers are 1 × 1 convolutions."""

    arch: Literal["vit"]
    patch: PositiveInt
    """Side of a patch, in pixels."""
    dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt
    mlp_dim: PositiveInt
    pool: Literal["class", "mean"]
    """What the head reads: a class token, or the mean of the patch tokens."""
    dropout: Annotated[Fraction | None, OFF_IF_ABSENT] = None
    init: Annotated[Literal["mimetic", "normal"] | None, OFF_IF_ABSENT] = None
    """`mimetic`: attention and positions start as trained networks have them. `normal`: class token
    and positions start with standard deviation 1 instead of 0.02."""


class ViTConvEntry(Recipe):
    """Vision transformer with a convolutional stem, relative positions and mean pooling."""

    arch: Literal["vit_conv"]
    dim: Annotated[int, Field(ge=4, multiple_of=4)]
    depth: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt
    mlp_dim: PositiveInt


class ConvMixerEntry(Recipe):
    """ConvMixer."""

    arch: Literal["convmixer"]
    patch: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    kernel: OddInt
    init: Annotated[Literal["covariance"] | None, OFF_IF_ABSENT] = None
    """`covariance`: depthwise kernels start smooth, and wider in later blocks."""


class CompactLNEntry(Recipe):
    """Small convolutional network with layer norm alone."""

    arch: Literal["compact_ln"]
    stem: PositiveInt
    """Channels of the first convolution."""
    dims: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]
    """Channels of each stage; each begins by halving the resolution."""
    depths: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]
    """Blocks of each stage."""
    kernel: OddInt
    """Height and width of the depthwise convolutions."""
    expansion: PositiveInt
    """Hidden channels of each block's perceptron, in multiples of its channels."""

    @model_validator(mode="after")
    def _stages_agree(self) -> "CompactLNEntry":
        if len(self.dims) != len(self.depths):
            raise ValueError(
                f"`dims` has {len(self.dims)} stages, but `depths` has {len(self.depths)}; "
                "give both as many numbers"
            )
        return self


class ResNet18LNEntry(Recipe):
    """ResNet-18 with layer norm, GroupNorm(1, C), in place of every batch norm."""

    arch: Literal["resnet18_ln"]
    width: Annotated[int, Field(ge=16)]
    """Channels of the first stage; each later stage doubles them.

    Below 16, PyTorch 2.15 on a CPU writes past the weight gradient of a strided 1 × 1 convolution
    (channels last, threads that do not divide the batch), and the process dies.
    """
    strides: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(strict=False)
    """Of the four stages."""
    zero_init_residual: Annotated[bool | None, OFF_IF_ABSENT] = None
    """Start the weight of each block's last norm at zero."""


ModelEntry: TypeAlias = Annotated[
    ViTEntry | ViTConvEntry | ConvMixerEntry | CompactLNEntry | ResNet18LNEntry,
    Field(discriminator="arch"),
]
ARCHITECTURES: dict[str, type[Recipe]] = {
    get_args(kind.model_fields["arch"].annotation)[0]: kind
    for kind in get_args(get_args(ModelEntry)[0])
}
# Architectures that `gradcam.method` may explain by attention.
WITH_ATTENTION = ("vit", "vit_conv")
