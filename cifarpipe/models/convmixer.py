"""ConvMixer (arXiv:2201.09792): depthwise convolutions mix places, 1 × 1 ones mix channels."""

import torch
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, at its size: `[B, C, H, W]` → `[B, C, H, W]`.

    Args:
        channels: How many there are.
        kernel: Side of the kernels.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding="same", groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel; in fp32 on a CPU, where its gradients take longer in bf16."""
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))


class Residual(nn.Sequential):
    """Add the input to what the layers make of it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layers(x)."""
        return x + super().forward(x)


def convolution(conv: nn.Conv2d) -> list[nn.Module]:
    """Follow a convolution by the GELU and the norm that ConvMixer puts after each."""
    return [conv, nn.GELU(), nn.BatchNorm2d(conv.out_channels)]


class ConvMixer(nn.Module):
    """Patch embedding, `depth` blocks at one resolution, mean over places, head.

    Raises:
        ValueError: `patch` does not divide `image_size`.
    """

    def __init__(
        self, *, image_size: int, num_classes: int, patch: int, dim: int, depth: int, kernel: int
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch {patch} does not divide the image size {image_size}")
        self.stem = nn.Sequential(*convolution(nn.Conv2d(3, dim, patch, stride=patch)))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    Residual(*convolution(DepthwiseConv2d(dim, kernel))),
                    *convolution(nn.Conv2d(dim, dim, 1)),
                )
                for _ in range(depth)
            )
        )
        self.head = nn.Linear(dim, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Turn images `[B, 3, H, W]` into a map `[B, dim, H / patch, W / patch]`."""
        return self.blocks(self.stem(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """Average over places: `[B, dim, h, w]` → logits `[B, classes]`."""
        return self.head(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]` of images `[B, 3, H, W]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """Where a class activation map is taken: the block a quarter of the way up.

        Later ones see the whole picture from each place, and their maps name the pixels that matter
        less well (docs/explanations.md).
        """
        return self.blocks[max(len(self.blocks) // 4, 1) - 1]

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's output, which is a picture `[B, C, h, w]` already."""
        return activation
