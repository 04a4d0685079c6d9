"""Vision transformer (arXiv:2010.11929) whose every linear layer is a 1 × 1 convolution.

Tokens are kept as an image of one row, `[batch, dim, 1, tokens]`, so that a 1 × 1 `Conv2d` computes
on each token what `nn.Linear` would. The head reads a class token, which is the first token, or the
mean of the patch tokens.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn


class TokenNorm(nn.LayerNorm):
    """Layer norm over the channels of each token: `[B, C, 1, N]` → `[B, C, 1, N]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each token."""
        return rearrange(super().forward(rearrange(x, "b c 1 n -> b n c")), "b n c -> b c 1 n")


class QueryKeyValue(nn.Conv2d):
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
        self.to_qkv = QueryKeyValue(dim, 3 * heads * head_dim, 1)
        self.attend = DotProductAttention(dropout)
        self.to_out = nn.Conv2d(heads * head_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens: `[B, C, 1, N]` → `[B, C, 1, N]`."""
        q, k, v = rearrange(
            self.to_qkv(x), "b (three h d) 1 n -> three b h n d", three=3, h=self.heads
        )
        out: Tensor = self.to_out(rearrange(self.attend(q, k, v), "b h n d -> b (h d) 1 n"))
        return out


class FeedForward(nn.Sequential):
    """Two-layer perceptron on each token."""

    def __init__(self, *, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(dim, mlp_dim, 1), nn.GELU(), nn.Dropout(dropout), nn.Conv2d(mlp_dim, dim, 1)
        )


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, *, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm = TokenNorm(dim)
        self.attention = Attention(dim=dim, heads=heads, head_dim=head_dim, dropout=dropout)
        self.mlp_norm = TokenNorm(dim)
        self.mlp = FeedForward(dim=dim, mlp_dim=mlp_dim, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Two residual branches: `[B, C, 1, N]` → `[B, C, 1, N]`."""
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
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch {patch} does not divide the image size {image_size}")
        self.grid = image_size // patch
        self.patch_embedding = nn.Conv2d(3, dim, patch, stride=patch)
        self.class_token = (
            nn.Parameter(torch.randn(1, dim, 1, 1) * 0.02) if pool == "class" else None
        )
        tokens = self.grid**2 + (self.class_token is not None)
        self.positions = nn.Parameter(torch.randn(1, dim, 1, tokens) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                Block(dim=dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim, dropout=dropout)
                for _ in range(depth)
            )
        )
        self.norm = TokenNorm(dim)
        self.head = nn.Conv2d(dim, num_classes, 1)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` → tokens `[B, dim, 1, N]`, the patch tokens last."""
        tokens = rearrange(self.patch_embedding(images), "b c h w -> b c 1 (h w)")
        if self.class_token is not None:
            class_token = self.class_token.expand(len(images), -1, -1, -1)
            tokens = torch.cat([class_token, tokens], dim=3)
        return self.blocks(self.dropout(tokens + self.positions))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, dim, 1, N]` → class token or mean → logits `[B, classes]`."""
        pooled = reduce(self.norm(tokens[..., self.pooled_tokens]), "b c 1 n -> b c 1 1", "mean")
        return rearrange(self.head(pooled), "b k 1 1 -> b k")

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
        """Return that layer's patch tokens as a map: `[B, C, 1, N]` → `[B, C, h, w]`."""
        return rearrange(activation[..., -(self.grid**2) :], "b c 1 (h w) -> b c h w", h=self.grid)

    @property
    def attentions(self) -> list[DotProductAttention]:
        """The attentions of all blocks, in order of use."""
        return [block.attention.attend for block in self.blocks if isinstance(block, Block)]

    @property
    def pooled_tokens(self) -> slice:
        """Which tokens the head reads the mean of."""
        return slice(1) if self.class_token is not None else slice(None)
