"""ConvMixer (arXiv:2201.09792): depthwise convolutions mix positions, 1 × 1 ones mix channels."""

from torch import Tensor, nn


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

    Raises:
        ValueError: `patch` does not divide `image_size`.
    """

    def __init__(
        self, *, image_size: int, num_classes: int, patch: int, dim: int, depth: int, kernel: int
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch {patch} does not divide the image size {image_size}")
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
