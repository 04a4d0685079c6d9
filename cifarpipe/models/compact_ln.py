"""A small convolutional network with layer norm alone, in the manner of ConvNeXt.

Blocks as in arXiv:2201.03545: a depthwise convolution mixes positions, two 1 × 1 convolutions mix
channels. Layer norm is over the channels of each position. Tensors between the layers are
`[B, H, W, C]`, the layout in which matrix products and layer norm are fast.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class PixelConv2d(nn.Conv2d):
    """A 1 × 1 convolution, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, in_channels]` → `[B, H, W, out_channels]`."""
        return F.linear(x, self.weight.flatten(1), self.bias)


class ChannelsLast(nn.Sequential):
    """Layers of `[B, C, H, W]`, applied to `[B, H, W, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the layers' output, channels last."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """A residual branch: depthwise convolution, norm, two-layer perceptron on each position."""

    def __init__(self, *, dim: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = ChannelsLast(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same"))
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            PixelConv2d(dim, expansion * dim), nn.GELU(), PixelConv2d(expansion * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, dim]` → `[B, H, W, dim]`."""
        return x + self.mlp(self.norm(self.depthwise(x)))


def halve(dim_in: int, dim: int) -> list[nn.Module]:
    """Return a norm and the convolution that halves height and width."""
    return [nn.LayerNorm(dim_in), ChannelsLast(nn.Conv2d(dim_in, dim, 2, stride=2))]


class CompactLN(nn.Module):
    """One convolution, stages of blocks, mean over positions, norm, head.

    Args:
        image_size: Height and width of the images.
        num_classes: Length of the logits.
        stem: Channels of the first convolution, at the images' resolution.
        dims: Channels of each stage; each stage begins by halving the resolution.
        depths: Blocks of each stage.
        kernel: Height and width of the depthwise convolutions, odd.
        expansion: Hidden channels of the perceptron, in multiples of a stage's channels.

    Raises:
        ValueError: `dims` and `depths` differ in length; or there are too many stages.
    """

    # Measured (docs/performance_cpu.md): devices on which channels-last layout is faster, and what
    # compiled depthwise gradients save on a CPU, rounded down (training/execution.py has the unit).
    channels_last_on = ("cpu",)
    compile_gain: ClassVar[dict[str, float]] = {"bf16": 1.0e-11, "fp32": 1.0e-11}

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        stem: int,
        dims: Sequence[int],
        depths: Sequence[int],
        kernel: int,
        expansion: int,
    ) -> None:
        super().__init__()
        if len(dims) != len(depths):
            raise ValueError(f"there are {len(dims)} `dims`, but {len(depths)} `depths`")
        if image_size < 2 ** len(dims):
            most = image_size.bit_length() - 1
            raise ValueError(
                f"images of {image_size} × {image_size} can be halved {most} times, but there are "
                f"{len(dims)} `dims`"
            )
        layers: list[nn.Module] = [
            ChannelsLast(nn.Conv2d(3, stem, 3, padding=1)),
            nn.GELU(),
        ]
        for dim_in, dim, depth in zip([stem, *dims], dims, depths, strict=False):
            layers += halve(dim_in, dim)
            layers += [Block(dim=dim, kernel=kernel, expansion=expansion) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → features `[B, h, w, C]`, of the last stage."""
        return self.layers(images.permute(0, 2, 3, 1))

    def forward_head(self, features: Tensor) -> Tensor:
        """Features `[B, h, w, C]` → mean over positions → logits `[B, classes]`."""
        return self.head(self.norm(features.mean(dim=(1, 2))))

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → logits `[B, classes]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose activation map is taken: the GELU of the first block.

        A GELU's output is near zero where a feature is absent, as class activation maps assume;
        that of a norm or of a whole block is not, and maps of these rank pixels less well. Those of
        later blocks are less often on the object (docs/explanations.md).
        """
        first = next(layer for layer in self.layers if isinstance(layer, Block))
        activation: nn.Module = first.mlp[1]
        return activation

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's output as a map: `[B, h, w, C]` → `[B, C, h, w]`."""
        return activation.permute(0, 3, 1, 2)
