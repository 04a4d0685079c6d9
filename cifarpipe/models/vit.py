"""Vision transformer (arXiv:2010.11929) whose every linear layer is a 1 × 1 convolution.

Tokens are `[B, N, C]`. The head reads a class token, which is the first token, or the mean of the
patch tokens.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class TokenConv2d(nn.Conv2d):
    """A 1 × 1 convolution of tokens.

    What `nn.Conv2d` computes on an image `[B, C, 1, N]`, this computes on tokens `[B, N, C]`, the
    layout in which matrix products and layer norm are fast.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, in_channels]` → `[B, N, out_channels]`."""
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class QueryKeyValue(TokenConv2d):
    """Three linear maps of each token, stacked in one convolution."""

    stacked = 3


class DotProductAttention(nn.Module):
    """Softmax(q kᵀ / √d) v, for each head.

    With `explicit` the attention weights are a tensor of their own, the output of `softmax`, which
    forward hooks can read; otherwise one fused kernel computes everything.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.explicit = False
        self.dropout = dropout
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Three times `[B, heads, N, head_dim]` → `[B, heads, N, head_dim]`."""
        dropout = self.dropout if self.training else 0.0
        if not self.explicit:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        weights = self.softmax(q @ k.mT / q.shape[-1] ** 0.5)
        return F.dropout(weights, dropout) @ v


class Attention(nn.Module):
    """Multi-head self-attention; heads × head_dim need not equal dim."""

    def __init__(self, *, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = QueryKeyValue(dim, 3 * heads * head_dim)
        self.attend = DotProductAttention(dropout)
        self.to_out = TokenConv2d(heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens: `[B, N, C]` → `[B, N, C]`."""
        q, k, v = rearrange(
            self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        out: Tensor = self.to_out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))
        return out


class FeedForward(nn.Sequential):
    """Two-layer perceptron on each token."""

    def __init__(self, *, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__(
            TokenConv2d(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), TokenConv2d(mlp_dim, dim)
        )


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, *, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim=dim, heads=heads, head_dim=head_dim, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim=dim, mlp_dim=mlp_dim, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Two residual branches: `[B, N, C]` → `[B, N, C]`."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ViT(nn.Module):
    """Patch embedding, learned positions, blocks, norm and head.

    Args:
        image_size: Height and width of the images, in pixels.
        num_classes: Length of the logits.
        patch: Side of a patch, in pixels.
        dim: Channels of a token.
        depth: Number of blocks.
        heads: Of each attention.
        head_dim: Channels of a head.
        mlp_dim: Hidden channels of the perceptron.
        dropout: Probability, on tokens, attention weights and both residual branches.
        pool: `class`: the head reads a class token. `mean`: it reads the mean of the patch tokens,
            and there is no class token.
        init: `mimetic`: attention and positions start as `init_mimetic` describes. Otherwise
            attention starts as PyTorch's layers do; class token and positions are random numbers
            with standard deviation 1 (`normal`, as in lucidrains/vit-pytorch) or 0.02 (None).

    Raises:
        ValueError: `patch` does not divide `image_size`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp_dim: int,
        dropout: float = 0.0,
        pool: Literal["class", "mean"] = "class",
        init: Literal["mimetic", "normal"] | None = None,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch {patch} does not divide the image size {image_size}")
        self.grid = image_size // patch
        self.patch_embedding = nn.Conv2d(3, dim, patch, stride=patch)
        deviation = 1.0 if init == "normal" else 0.02
        token = torch.randn(1, 1, dim) * deviation if pool == "class" else None
        self.class_token = None if token is None else nn.Parameter(token)
        tokens = self.grid**2 + (self.class_token is not None)
        self.positions = nn.Parameter(torch.randn(1, tokens, dim) * deviation)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                Block(dim=dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim, dropout=dropout)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim)
        self.head = TokenConv2d(dim, num_classes)
        if init == "mimetic":
            init_mimetic(self)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → tokens `[B, N, dim]`, the patch tokens last."""
        tokens = rearrange(self.patch_embedding(images), "b c h w -> b (h w) c")
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), tokens], dim=1)
        return self.blocks(self.dropout(tokens + self.positions))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, N, dim]` → class token or mean → logits `[B, classes]`."""
        pooled = self.norm(tokens[:, self.pooled_tokens]).mean(dim=1)
        logits: Tensor = self.head(pooled)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → logits `[B, classes]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """The layer whose activation map is taken: the last block's first norm, or the last norm.

        With a class token, only that token is used after the last attention: at any later layer the
        gradient of the patch tokens, and with it every map, is zero. Without one, the last norm is
        followed by a mean and a linear layer, so that the map shows how each position adds to the
        logit.
        """
        if self.class_token is None:
            return self.norm
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.attention_norm

    def cam_map(self, activation: Tensor) -> Tensor:
        """Return that layer's patch tokens as a map: `[B, N, C]` → `[B, C, h, w]`."""
        return rearrange(activation[:, -(self.grid**2) :], "b (h w) c -> b c h w", h=self.grid)

    @property
    def attentions(self) -> list[DotProductAttention]:
        """The attentions of all blocks, in order of use."""
        return [block.attention.attend for block in self.blocks if isinstance(block, Block)]

    @property
    def pooled_tokens(self) -> slice:
        """Which tokens the head reads the mean of."""
        return slice(1) if self.class_token is not None else slice(None)


@torch.no_grad()
def init_mimetic(model: ViT) -> None:
    """Start attention and positions as trained networks have them (arXiv:2305.09828).

    Queries and keys of each head make tokens attend to similar ones; values and output together
    subtract part of what is attended to. Positions are sinusoidal.
    """
    for block in model.blocks:
        assert isinstance(block, Block)
        attention = block.attention
        dim = attention.to_out.out_channels
        queries, keys, values = attention.to_qkv.weight.chunk(3)
        out = attention.to_out.weight
        similarity, mixing = (0.7, 0.7), (0.4, -0.4)  # of the random part, of the identity
        heads = (each.chunk(attention.heads) for each in (queries, keys))
        for query, key in zip(*heads, strict=True):
            left, right = factors(near_identity(dim, *similarity), len(query))
            query.copy_(left.mT[..., None, None])
            key.copy_(right[..., None, None])
        left, right = factors(near_identity(dim, *mixing), len(values))
        out.copy_(left[..., None, None])
        values.copy_(right[..., None, None])
    model.positions.zero_()
    model.positions[0, -(model.grid**2) :] = sinusoidal_positions(model.grid, dim)


def near_identity(size: int, noise: float, identity: float) -> Tensor:
    """Return `noise` × Z + `identity` × I, Z with normal entries of variance 1 / size."""
    return noise * torch.randn(size, size) / size**0.5 + identity * torch.eye(size)


def factors(matrix: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Split a square matrix into two factors of equal singular values.

    Returns:
        `[size, channels]` and `[channels, size]`, whose product is the matrix, or its best
        approximation if it has more rows than there are channels. All channels are used.
    """
    u, s, vt = torch.linalg.svd(matrix)
    rank = min(len(matrix), channels)
    rotation = torch.linalg.qr(torch.randn(channels, rank)).Q
    roots = s[:rank].sqrt()
    return u[:, :rank] * roots @ rotation.mT, rotation @ (roots[:, None] * vt[:rank])


def sinusoidal_positions(grid: int, dim: int) -> Tensor:
    """Encode rows in the first half of the channels and columns in the second.

    Sines and cosines of wavelengths from 2π to 20,000π positions (arXiv:1706.03762).

    Returns:
        `[grid², dim]`.
    """
    quarter = dim // 4
    frequencies = 1e-4 ** (torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, dim / 2]
    rows = waves[:, None].expand(grid, grid, -1)
    columns = waves[None].expand(grid, grid, -1)
    positions = torch.zeros(grid**2, dim)
    positions[:, : 4 * quarter] = torch.cat([rows, columns], dim=2).reshape(grid**2, -1)
    return positions
