"""The vision transformer compared with one written with `nn.Linear`, in double precision."""

import itertools
from typing import Literal

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.config.reader import load_params
from cifarpipe.models.build import build_model
from cifarpipe.models.vit import TokenConv2d, ViT
from cifarpipe.training.cost import layer_table
from tests.support.network_weights import (
    lower_gelu_input,
    randomise_weights,
    relative_difference,
)
from tests.support.params_text import EXAMPLE

DEFAULTS = load_params(EXAMPLE)
SIZES = {"patch": 4, "dim": 24, "depth": 2, "heads": 3, "head_dim": 10, "mlp_dim": 40}
POOLS = pytest.mark.parametrize("pool", ["class", "mean"])
# Changes of the twin; each must change the logits, or the comparison could not see it.
CHANGES = [
    "attention divided by head_dim",
    "heads interleaved",
    "no attention residual",
    "no MLP residual",
    "tanh GELU",
    "no attention norm",
    "no MLP norm",
    "no last norm",
    "norm after the block",
    "no positions",
    "patches transposed",
    "other pooling",
]


class LinearViT(nn.Module):
    """The same network written the usual way: tokens `[B, N, C]` and `nn.Linear`."""

    def __init__(self, model: ViT) -> None:
        """Take the weights of `model`."""
        super().__init__()
        dim, inner = SIZES["dim"], SIZES["heads"] * SIZES["head_dim"]
        self.embed = nn.Linear(3 * SIZES["patch"] ** 2, dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention_norm": nn.LayerNorm(dim),
                    "qkv": nn.Linear(dim, 3 * inner),
                    "out": nn.Linear(inner, dim),
                    "mlp_norm": nn.LayerNorm(dim),
                    "up": nn.Linear(dim, SIZES["mlp_dim"]),
                    "down": nn.Linear(SIZES["mlp_dim"], dim),
                }
            )
            for _ in range(SIZES["depth"])
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, model.head.out_channels)
        copy_weights(self.embed, model.patch_embedding)
        for block, other in zip(self.blocks, model.blocks, strict=True):
            copy_weights(block["attention_norm"], other.attention_norm)
            copy_weights(block["qkv"], other.attention.to_qkv)
            copy_weights(block["out"], other.attention.to_out)
            copy_weights(block["mlp_norm"], other.mlp_norm)
            copy_weights(block["up"], other.mlp[0])
            copy_weights(block["down"], other.mlp[3])
        copy_weights(self.norm, model.norm)
        copy_weights(self.head, model.head)
        self.class_token = None
        if model.class_token is not None:
            self.class_token = model.class_token.data.reshape(1, 1, -1)
        self.positions = model.positions.data[0]

    def forward(self, images: Tensor, change: str | None = None) -> Tensor:
        # The order of a convolution's weight: channel, then row, then column.
        layout = "(w h)" if change == "patches transposed" else "(h w)"
        side = SIZES["patch"]
        patches = einops.rearrange(images, f"b c (h y) (w x) -> b {layout} (c y x)", y=side, x=side)
        x = self.embed(patches)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(images), 1, -1), x], dim=1)
        if change != "no positions":
            x = x + self.positions
        for block in self.blocks:
            x = self.run_block(block, x, change)
        use_class_token = (self.class_token is not None) != (change == "other pooling")
        x = x if change == "no last norm" else self.norm(x)
        return self.head(x[:, 0] if use_class_token else x.mean(dim=1))

    def run_block(self, block: nn.ModuleDict, x: Tensor, change: str | None) -> Tensor:
        norm, after = block["attention_norm"], change == "norm after the block"
        h = x if after or change == "no attention norm" else norm(x)
        h = block["out"](self.attend(block["qkv"](h), change))
        x = h if change == "no attention residual" else x + h
        x = norm(x) if after else x
        h = x if change == "no MLP norm" else block["mlp_norm"](x)
        approximate = "tanh" if change == "tanh GELU" else "none"
        h = block["down"](F.gelu(block["up"](h), approximate=approximate))
        return h if change == "no MLP residual" else x + h

    def attend(self, qkv: Tensor, change: str | None) -> Tensor:
        heads, size = SIZES["heads"], SIZES["head_dim"]
        split = (size, heads) if change == "heads interleaved" else (heads, size)
        q, k, v = (each.unflatten(-1, split) for each in qkv.chunk(3, dim=-1))
        if change == "heads interleaved":
            q, k, v = q.mT, k.mT, v.mT
        scale = size if change == "attention divided by head_dim" else size**0.5
        weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / scale).softmax(dim=-1)
        return torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    ours.weight.data = theirs.weight.data.reshape(ours.weight.shape)
    ours.bias.data = theirs.bias.data


def make(pool: str) -> tuple[ViT, LinearViT, Tensor]:
    """Return a network in which every part matters, its twin, and images."""
    model = ViT(image_size=16, num_classes=7, pool=pool, **SIZES)
    randomise_weights(model)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.to_qkv.weight *= 1.5
            lower_gelu_input(block.mlp[0], mean=-3.5, scale=0.5)
            block.mlp[3].weight *= 200  # since the GELU of −3.5 is small
    model = model.double().eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return model, LinearViT(model), images.double()


def test_token_convolution_equals_convolution_of_an_image() -> None:
    layer = TokenConv2d(5, 7).double()
    tokens = torch.randn(3, 11, 5, dtype=torch.float64)
    image = nn.Conv2d.forward(layer, tokens.mT[:, :, None])  # [B, C, 1, N]
    torch.testing.assert_close(layer(tokens), image[:, :, 0].mT)


@POOLS
@pytest.mark.parametrize("explicit", [False, True])
@torch.no_grad()
def test_vit_equals_twin_with_linear_layers(pool: str, explicit: bool) -> None:
    model, twin, images = make(pool)
    for attention in model.attentions:
        attention.explicit = explicit
    torch.testing.assert_close(model(images), twin(images))


@POOLS
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_every_part_of_vit_matters(pool: str, change: str) -> None:
    _, twin, images = make(pool)
    assert relative_difference(twin(images, change), twin(images)) > 0.01


@torch.no_grad()
def test_class_token_matters() -> None:
    _, twin, images = make("class")
    expected = twin(images)
    twin.class_token = torch.zeros_like(twin.class_token)
    assert relative_difference(twin(images), expected) > 0.01


def switch_on(model: ViT, place: str) -> None:
    """Use dropout in one place only."""
    block = model.blocks[0]
    match place:
        case "tokens":
            model.dropout.p = 0.5
        case "attention":
            block.attention.attend.dropout = 0.5
        case "hidden":
            block.mlp[2].p = 0.5
        case "branches":
            block.dropout.p = 0.5


@pytest.mark.parametrize("place", ["tokens", "attention", "hidden", "branches"])
@pytest.mark.parametrize("explicit", [False, True])
@torch.no_grad()
def test_dropout_acts_only_in_training(place: str, explicit: bool) -> None:
    model, _, images = make("class")
    expected = model(images)
    for attention in model.attentions:
        attention.explicit = explicit
    switch_on(model, place)
    torch.testing.assert_close(model(images), expected)
    assert relative_difference(model.train()(images), expected) > 0.01


def test_dropout_key_reaches_all_places() -> None:
    model = ViT(image_size=16, num_classes=7, dropout=0.3, **SIZES)
    layers = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert layers == [0.3] * (1 + 2 * SIZES["depth"])
    assert [attention.dropout for attention in model.attentions] == [0.3] * SIZES["depth"]


def test_class_token_is_the_default() -> None:
    model = ViT(image_size=16, num_classes=7, **SIZES)
    assert model.class_token is not None


@pytest.mark.parametrize(("init", "deviation"), [(None, 0.02), ("normal", 1.0)])
def test_initial_tokens_and_positions(init: Literal["normal"] | None, deviation: float) -> None:
    torch.manual_seed(0)
    model = ViT(image_size=64, num_classes=7, init=init, **(SIZES | {"dim": 512}))
    for parameter in (model.class_token, model.positions):
        assert parameter is not None
        assert parameter.mean().item() == pytest.approx(0, abs=0.2 * deviation)
        assert parameter.std().item() == pytest.approx(deviation, rel=0.15)


def mimetic_products(dim: int, head_dim: int) -> tuple[list[Tensor], Tensor]:
    """Return kᵀq of each head and out · v of all heads, `[dim, dim]` each, of one block."""
    torch.manual_seed(0)
    sizes = SIZES | {"dim": dim, "head_dim": head_dim}
    model = ViT(image_size=16, num_classes=7, init="mimetic", **sizes)
    attention = model.blocks[1].attention
    q, k, v = attention.to_qkv.weight.detach().flatten(1).chunk(3)
    heads = zip(q.chunk(SIZES["heads"]), k.chunk(SIZES["heads"]), strict=True)
    out = attention.to_out.weight.detach().flatten(1)
    return [query.mT @ key for query, key in heads], out @ v


@pytest.mark.parametrize("head_dim", [96, 160])
def test_mimetic_products_are_near_scaled_identity(head_dim: int) -> None:
    """As the paper has it: 0.7 (Z + I) for queries and keys, 0.4 (Z - I) for output and values."""
    dim = 96
    similarities, mixing = mimetic_products(dim, head_dim)
    for product, noise, identity in ((similarities[0], 0.7, 0.7), (mixing, 0.4, -0.4)):
        assert product.diagonal().mean().item() == pytest.approx(identity, abs=0.03)
        rest = product - product.diagonal().mean() * torch.eye(dim)
        assert rest.std().item() == pytest.approx(noise / dim**0.5, rel=0.05)
    assert relative_difference(similarities[0], similarities[1]) > 0.5  # heads differ


def test_narrow_mimetic_heads_keep_the_largest_directions() -> None:
    (similarity, *_), mixing = mimetic_products(96, 32)
    assert torch.linalg.matrix_rank(similarity) == 32
    assert torch.linalg.matrix_rank(mixing) == 96  # of all heads together
    assert similarity.trace() > 0.5 * 32
    assert mixing.trace() < -0.2 * 96


def test_every_channel_of_mimetic_attention_is_used() -> None:
    """A channel whose value and output were both zero would never learn."""
    model = ViT(image_size=16, num_classes=7, init="mimetic", **(SIZES | {"head_dim": 60}))
    attention = model.blocks[0].attention
    assert attention.to_qkv.weight.flatten(1).norm(dim=1).min() > 0
    assert attention.to_out.weight.flatten(1).norm(dim=0).min() > 0


def test_mimetic_positions_are_sinusoidal() -> None:
    model = ViT(image_size=16, num_classes=7, init="mimetic", **SIZES)
    class_token, patches = model.positions[0, :1], model.positions[0, 1:].view(4, 4, 24)
    assert not class_token.any()
    for row, column, number in itertools.product(
        range(4), range(4), range(6)
    ):  # of 24 / 4 frequencies
        frequency = 10_000 ** (-number / 6)
        expected = torch.tensor([row * frequency, column * frequency])
        torch.testing.assert_close(patches[row, column, [number, 12 + number]], expected.sin())
        torch.testing.assert_close(patches[row, column, [6 + number, 18 + number]], expected.cos())


def test_default_vit_has_its_published_size() -> None:
    table = layer_table(build("vit"), 32)
    outside = table[table.type == "Parameter"]
    assert dict(zip(outside.layer, outside.parameters, strict=True)) == {
        "class_token": 128,
        "positions": 65 * 128,
    }
    assert table[table.type != "Parameter"].parameters.sum() == 1_989_258


@pytest.mark.parametrize(("pool", "tokens"), [("class", 65), ("mean", 64)])
def test_vit_macs_by_hand(pool: str, tokens: int) -> None:
    dim, inner, mlp = 128, 8 * 64, 256
    block = tokens * (dim * 3 * inner + inner * dim + 2 * dim * mlp) + 2 * tokens**2 * inner
    by_hand = 64 * (4 * 4 * 3) * dim + 6 * block + dim * 10
    assert layer_table(build("vit", pool=pool), 32).macs.sum() == by_hand


def build(name: str, **changes: str) -> nn.Module:
    architecture = DEFAULTS.models[name].architecture | changes
    return build_model(architecture, num_classes=10, image_size=32)


def test_vit_without_class_token_has_fewer_parameters() -> None:
    with_token, without = (
        ViT(image_size=16, num_classes=7, pool=p, **SIZES) for p in ("class", "mean")
    )
    assert without.class_token is None
    assert with_token.class_token is not None
    assert with_token.positions.shape[1] == without.positions.shape[1] + 1
