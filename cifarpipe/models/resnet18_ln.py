"""ResNet-18 (arXiv:1512.03385) for small images, with layer norm in place of every batch norm.

Layer norm over channels and positions together is `GroupNorm` with a single group. The stem is a
3 × 3 convolution without pooling, as usual for 32 × 32 images.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def layer_norm(channels: int) -> nn.GroupNorm:
    """Return a norm over channels, height and width of each image."""
    return nn.GroupNorm(1, channels)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut (He et al., basic block)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = layer_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = layer_norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False),
                layer_norm(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_in, H, W]` → `[B, C, H / stride, W / stride]`."""
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet18LN(nn.Module):
    """Stem, four stages of two blocks each, mean over positions, head.

    Args:
        num_classes: Length of the logits.
        width: Channels of the first stage; each later stage doubles them.
        strides: Of the four stages.
        zero_init_residual: Start the weight of each block's last norm at zero, so that a new
            block passes on its shortcut alone (arXiv:1706.02677, section 5.1).
    """

    channels_last_on = ("cpu",)  # devices on which that layout is faster (docs/performance_cpu.md)

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 64,
        strides: Sequence[int] = (1, 2, 2, 1),
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), layer_norm(width), nn.ReLU()
        )
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(BasicBlock(before, after, stride), BasicBlock(after, after, 1))
                for before, after, stride in zip(channels, channels[1:], strides, strict=False)
            )
        )
        self.head = nn.Linear(channels[-1], num_classes)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.norm2.weight)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → features `[B, 8 × width, H / s, W / s]`, s: all strides."""
        return self.stages(self.stem(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """Features `[B, C, h, w]` → mean over positions → logits `[B, classes]`."""
        return self.head(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → logits `[B, classes]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose activation map is taken: the last stage."""
        return self.stages[-1]

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's output as `[B, C, h, w]`, which it is already."""
        return activation
