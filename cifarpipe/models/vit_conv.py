"""Vision transformer with a convolutional stem, relative positions and mean pooling.

The stem is that of arXiv:2106.14881, the bias of attention by relative positions that of
arXiv:2103.14030. As in `vit`, every linear layer is a 1 × 1 convolution.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


# This and the next two are like those of vit.py, but not shared: an edit of one architecture's file
# retrains no model of another.
class TokenConv2d(nn.Conv2d):
    """A 1 × 1 convolution of tokens, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, in_channels]` → `[B, N, out_channels]`."""
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class QueryKeyValue(TokenConv2d):
    """Three linear maps of each token, stacked in one convolution."""

    stacked = 3


class RelativeAttention(nn.Module):
    """Softmax(q kᵀ / √d + bias) v, for each head.

    The bias of a head depends on how many rows and columns lie between query and key.
    """

    explicit = True  # the attention weights are always the output of `softmax`
    offsets: Tensor

    def __init__(self, *, grid: int, heads: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(heads, (2 * grid - 1) ** 2) * 0.02)
        self.register_buffer("offsets", relative_offsets(grid), persistent=False)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Three times `[B, heads, N, head_dim]` → `[B, heads, N, head_dim]`."""
        bias = self.bias[:, self.offsets].to(q.dtype)  # [heads, N, N]
        weights: Tensor = self.softmax(q @ k.mT / q.shape[-1] ** 0.5 + bias)
        return weights @ v


def relative_offsets(grid: int) -> Tensor:
    """Number the offsets between the positions of a square grid, each of −grid < … < grid.

    Returns:
        `[N, N]` int64 for N = grid², 0 ≤ … < (2 grid − 1)²: by rows of offsets, then columns.
    """
    row, column = torch.arange(grid**2) // grid, torch.arange(grid**2) % grid
    rows = row[:, None] - row + grid - 1
    columns = column[:, None] - column + grid - 1
    return rows * (2 * grid - 1) + columns


class Attention(nn.Module):
    """Multi-head self-attention; heads × head_dim need not equal dim."""

    def __init__(self, *, grid: int, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = QueryKeyValue(dim, 3 * heads * head_dim)
        self.attend = RelativeAttention(grid=grid, heads=heads)
        self.to_out = TokenConv2d(heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens: `[B, N, C]` → `[B, N, C]`."""
        q, k, v = rearrange(
            self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        out: Tensor = self.to_out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, *, grid: int, dim: int, heads: int, head_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(grid=grid, dim=dim, heads=heads, head_dim=head_dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(TokenConv2d(dim, mlp_dim), nn.GELU(), TokenConv2d(mlp_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Two residual branches: `[B, N, C]` → `[B, N, C]`."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def conv_stem(dim: int) -> nn.Sequential:
    """Return the layers that turn images into tokens of 4 × 4 pixels.

    A kernel of 4, not 3, halves the resolution without moving the image by half a pixel, so that
    tokens lie where maps show them.
    """
    return nn.Sequential(
        nn.Conv2d(3, dim // 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(dim // 4),
        nn.ReLU(),
        nn.Conv2d(dim // 4, dim // 2, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(dim // 2),
        nn.ReLU(),
        nn.Conv2d(dim // 2, dim, 4, stride=2, padding=1),
    )


class ViTConv(nn.Module):
    """Stem, blocks, mean over tokens, norm, head.

    Args:
        image_size: Height and width of the images, in pixels.
        num_classes: Length of the logits.
        dim: Channels of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Of each attention.
        head_dim: Channels of a head.
        mlp_dim: Hidden channels of the perceptron.

    Raises:
        ValueError: `image_size` is not a multiple of 4.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        dim: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
    ) -> None:
        super().__init__()
        if image_size % 4:
            raise ValueError(
                f"the stem halves the image size twice, and {image_size} is not a multiple of 4"
            )
        self.grid = image_size // 4
        self.stem = conv_stem(dim)
        self.blocks = nn.Sequential(
            *(
                Block(grid=self.grid, dim=dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim)
        self.head = TokenConv2d(dim, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → tokens `[B, N, dim]`."""
        return self.blocks(rearrange(self.stem(images), "b c h w -> b (h w) c"))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, N, dim]` → mean → logits `[B, classes]`."""
        logits: Tensor = self.head(self.norm(tokens.mean(dim=1)))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → logits `[B, classes]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose activation map is taken: the stem's last ReLU.

        Later, tokens hold what attention has gathered from other positions, so that their place
        says less about where the evidence is (docs/explanations.md).
        """
        return self.stem[5]

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's output as `[B, C, h, w]`, which it is already."""
        return activation

    @property
    def attentions(self) -> list[RelativeAttention]:
        """The attentions of all blocks, in order of use."""
        return [block.attention.attend for block in self.blocks if isinstance(block, Block)]

    @property
    def pooled_tokens(self) -> slice:
        """Which tokens the head reads the mean of: all."""
        return slice(None)
