"""Vision transformer (arXiv:2010.11929) whose every linear layer is a 1 × 1 convolution.

Tokens are kept as a one-row picture `[batch, dim, 1, tokens]`, so that a 1 × 1 `Conv2d` is the same
map on each token that `nn.Linear` would be. The answer is read from a class token, which then is
the first, or from the mean of the tokens of all patches.
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


class QueriesKeysValues(nn.Conv2d):
    """Three maps of each token, stacked in one convolution."""

    stacked = 3


class Attention(nn.Module):
    """Multi-head self-attention; heads × head_dim need not equal dim."""

    def __init__(self, *, dim: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.to_qkv = QueriesKeysValues(dim, 3 * heads * head_dim, 1)
        self.to_out = nn.Conv2d(heads * head_dim, dim, 1)
        self.kept: list[Tensor] | None = None
        """Where it puts its attention `[B, heads, N, N]` while somebody asks for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens: `[B, C, 1, N]` → `[B, C, 1, N]`."""
        q, k, v = rearrange(
            self.to_qkv(x), "b (three h d) 1 n -> three b h n d", three=3, h=self.heads
        )
        dropout = self.dropout if self.training else 0.0
        if x.is_cuda and self.kept is None:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:  # in bf16 on a CPU, the fused kernel takes several times as long as this
            attend = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
            if self.kept is not None:
                self.kept.append(attend)
            mixed = F.dropout(attend, dropout) @ v
        out: Tensor = self.to_out(rearrange(mixed, "b h n d -> b (h d) 1 n"))
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
        """Add what attention and the perceptron find: `[B, C, 1, N]` → `[B, C, 1, N]`."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ViT(nn.Module):
    """Patch embedding, learned positions, blocks, norm and head.

    Args:
        pool: `class`: the answer is read from a class token; `mean`: from the mean of the patches'
            tokens, and there is no other.

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
        """Turn images `[B, 3, H, W]` into tokens `[B, dim, 1, N]`, those of patches last."""
        tokens = rearrange(self.patch_embedding(images), "b c h w -> b c 1 (h w)")
        if self.class_token is not None:
            class_token = self.class_token.expand(len(images), -1, -1, -1)
            tokens = torch.cat([class_token, tokens], dim=3)
        return self.blocks(self.dropout(tokens + self.positions))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Read the class token, or the mean of all: `[B, dim, 1, N]` → logits `[B, classes]`."""
        read = self.norm(tokens[..., self.read_tokens])
        pooled = reduce(read, "b c 1 n -> b c 1 1", "mean")
        return rearrange(self.head(pooled), "b k 1 1 -> b k")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[B, classes]` of images `[B, 3, H, W]`."""
        return self.forward_head(self.forward_features(images))

    @property
    def cam_layer(self) -> nn.Module:
        """Where a class activation map is taken: the last block's first norm, or the last norm.

        With a class token, after the last attention it alone is read, so at any later layer the
        gradient on the image's tokens, and with it every map, is zero. Without, the last norm is
        followed by a mean and a linear layer, so the map is the logit, place by place.
        """
        if self.class_token is None:
            return self.norm
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.attention_norm

    def cam_map(self, activation: Tensor) -> Tensor:
        """Lay that layer's output out as a picture: `[B, C, 1, N]` → `[B, C, h, w]`."""
        return rearrange(activation[..., -(self.grid**2) :], "b c 1 (h w) -> b c h w", h=self.grid)

    @property
    def attentions(self) -> list[Attention]:
        """Return what mixes the tokens, in order of use."""
        return [block.attention for block in self.blocks if isinstance(block, Block)]

    @property
    def read_tokens(self) -> slice:
        """Return which tokens the answer is the mean of."""
        return slice(1) if self.class_token is not None else slice(None)
