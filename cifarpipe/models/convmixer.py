"""ConvMixer (arXiv:2201.09792): depthwise convolutions mix positions, 1 × 1 ones mix channels."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

# Of the `spread` of `kernel_covariance`, in squared pixels. At depth d, from 0 (first block) to 1:
# SPREAD + SLOPE d + CURVATURE d² / 2.
SPREAD, SLOPE, CURVATURE = 0.16, 0.32, 2.88


class Residual(nn.Sequential):
    """Add the input to the output of the layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layers(x)."""
        return x + super().forward(x)


def conv_gelu_norm(conv: nn.Conv2d) -> list[nn.Module]:
    """Return a convolution with the GELU and batch norm that ConvMixer puts after each."""
    return [conv, nn.GELU(), nn.BatchNorm2d(conv.out_channels)]


class ConvMixer(nn.Module):
    """Patch embedding, `depth` blocks at one resolution, mean over positions, head.

    Args:
        image_size: Height and width of the images.
        num_classes: Number of logits.
        patch: Side of a patch, in pixels.
        dim: Channels.
        depth: Number of blocks.
        kernel: Side of the depthwise kernels; odd.
        init: `covariance`: these kernels start as `init_covariance` describes. Otherwise all layers
            start as PyTorch's do.

    Raises:
        ValueError: `patch` does not divide `image_size`, or is not smaller.
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
        patch: int,
        dim: int,
        depth: int,
        kernel: int,
        init: Literal["covariance"] | None = None,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch {patch} does not divide the image size {image_size}")
        if patch == image_size:  # depthwise convolutions and batch norm need several positions
            raise ValueError(f"patch {patch} leaves one position of images of {image_size} pixels")
        self.stem = nn.Sequential(*conv_gelu_norm(nn.Conv2d(3, dim, patch, stride=patch)))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    Residual(
                        *conv_gelu_norm(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same"))
                    ),
                    *conv_gelu_norm(nn.Conv2d(dim, dim, 1)),
                )
                for _ in range(depth)
            )
        )
        self.head = nn.Linear(dim, num_classes)
        if init == "covariance":
            init_covariance(self)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → features `[B, dim, H / patch, W / patch]`."""
        return self.blocks(self.stem(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """Features `[B, dim, h, w]` → mean over positions → logits `[B, classes]`."""
        return self.head(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → logits `[B, classes]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose activation map is taken: the block at a quarter of the depth.

        In later blocks every position sees the whole image, and their maps find the relevant pixels
        less well (docs/explanations.md).
        """
        return self.blocks[max(len(self.blocks) // 4, 1) - 1]

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's output as `[B, C, h, w]`, which it is already."""
        return activation


@torch.no_grad()
def init_covariance(model: ConvMixer) -> None:
    """Draw the depthwise kernels from a Gaussian that makes them smooth, and wider in later blocks.

    Kernels of trained networks are so. The idea is that of arXiv:2210.03651; the covariance here
    is a simple form, and was not compared with theirs.
    """
    kernels = [
        each.weight for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups > 1
    ]
    for number, kernel in enumerate(kernels):
        depth = number / max(len(kernels) - 1, 1)
        spread = SPREAD + SLOPE * depth + CURVATURE * depth**2 / 2
        values, vectors = torch.linalg.eigh(kernel_covariance(kernel.shape[-1], spread))
        root = (vectors * values.clamp(min=0).sqrt()).to(kernel.dtype)
        drawn = torch.randn(len(kernel), len(root), dtype=kernel.dtype) @ root.T
        kernel.copy_(drawn.view_as(kernel))


def kernel_covariance(side: int, spread: float) -> Tensor:
    """Return the covariance `[side², side²]` of a kernel's weights, in float64.

    Neighbouring weights are correlated, and all decrease with the distance from the centre.

    Args:
        side: Of the kernel, in pixels; odd.
        spread: Variance of a Gaussian, in squared pixels: of a weight's distance from the centre,
            and of the distance of two weights.
    """
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    places = torch.cartesian_prod(axis, axis)
    near = torch.exp(-torch.cdist(places, places).square() / (2 * spread))
    window = torch.exp(-places.square().sum(dim=1) / (2 * spread))
    return torch.outer(window, window) * (near - (window[:, None] + window) / 4)
