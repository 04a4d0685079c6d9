"""The vision transformer with a convolutional stem, compared with a functional twin."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.config.reader import load_params
from cifarpipe.models.build import build_model
from cifarpipe.models.vit_conv import ViTConv, relative_offsets
from cifarpipe.training.cost import layer_table
from tests.support.network_weights import (
    lower_gelu_input,
    randomise_weights,
    relative_difference,
)
from tests.support.params_text import EXAMPLE

SIZES = {"dim": 24, "depth": 2, "heads": 3, "head_dim": 10, "mlp_dim": 40}
# Changes of the twin; each must change the logits, or the comparison could not see it.
CHANGES = [
    "no ReLU in the stem",
    "no norm in the stem",
    "attention divided by head_dim",
    "no bias",
    "bias of the opposite offset",
    "bias by columns before rows",
    "no attention residual",
    "no MLP residual",
    "tanh GELU",
    "no attention norm",
    "no MLP norm",
    "no last norm",
    "maximum over tokens",
]


def position_bias(table: Tensor, grid: int, change: str | None) -> Tensor:
    """Look up the bias `[heads, N, N]` of every pair of positions, one at a time."""
    positions = [(row, column) for row in range(grid) for column in range(grid)]
    bias = torch.zeros(len(table), grid**2, grid**2, dtype=table.dtype)
    if change == "no bias":
        return bias
    for i, query in enumerate(positions):
        for j, key in enumerate(positions):
            rows, columns = query[0] - key[0], query[1] - key[1]
            if change == "bias of the opposite offset":
                rows, columns = -rows, -columns
            if change == "bias by columns before rows":
                rows, columns = columns, rows
            bias[:, i, j] = table[:, (rows + grid - 1) * (2 * grid - 1) + columns + grid - 1]
    return bias


def twin(weights: dict[str, Tensor], images: Tensor, change: str | None = None) -> Tensor:
    """Compute the network's logits.

    Args:
        weights: A network's state dict.
        images: `[B, 3, H, W]`.
        change: One of `CHANGES`.
    """

    def norm(x: Tensor, name: str, without: str) -> Tensor:
        if change == without:
            return x
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def batch_norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (weights[f"{name}.{key}"].view(-1, 1, 1) for key in keys)
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])

    x = images
    for number, stride in ((0, 1), (3, 2)):
        x = F.conv2d(x, weights[f"stem.{number}.weight"], stride=stride, padding=1)
        if change != "no norm in the stem":
            x = batch_norm(x, f"stem.{number + 1}")
        if change != "no ReLU in the stem":
            x = x.relu()
    x = F.conv2d(x, weights["stem.6.weight"], weights["stem.6.bias"], stride=2, padding=1)
    grid = x.shape[-1]
    x = x.flatten(2).mT
    for number in range(SIZES["depth"]):
        block, heads, size = f"blocks.{number}", SIZES["heads"], SIZES["head_dim"]
        h = norm(x, f"{block}.attention_norm", "no attention norm")
        qkv = linear(h, f"{block}.attention.to_qkv").chunk(3, dim=-1)
        q, k, v = (each.unflatten(-1, (heads, size)) for each in qkv)
        scale = size if change == "attention divided by head_dim" else size**0.5
        scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / scale
        table = weights[f"{block}.attention.attend.bias"]
        attention = (scores + position_bias(table, grid, change)).softmax(dim=-1)
        h = torch.einsum("bhnm,bmhd->bnhd", attention, v).flatten(2)
        h = linear(h, f"{block}.attention.to_out")
        x = h if change == "no attention residual" else x + h
        h = linear(norm(x, f"{block}.mlp_norm", "no MLP norm"), f"{block}.mlp.0")
        h = F.gelu(h, approximate="tanh" if change == "tanh GELU" else "none")
        h = linear(h, f"{block}.mlp.2")
        x = h if change == "no MLP residual" else x + h
    pooled = x.amax(dim=1) if change == "maximum over tokens" else x.mean(dim=1)
    return linear(norm(pooled, "norm", "no last norm"), "head")


def make() -> tuple[ViTConv, Tensor]:
    """Return a network in which every part matters, and images."""
    model = ViTConv(image_size=16, num_classes=7, **SIZES)
    randomise_weights(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.to_qkv.weight *= 1.5
            lower_gelu_input(block.mlp[0], mean=-3.5, scale=0.5)
            block.mlp[2].weight *= 400  # since the GELU of −3.5 is small
        for layer in model.stem:
            if isinstance(layer, nn.BatchNorm2d):  # as after training, not 0 and 1
                layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    return model.double().eval(), images.double()


@torch.no_grad()
def test_vit_conv_equals_functional_twin() -> None:
    model, images = make()
    torch.testing.assert_close(model(images), twin(model.state_dict(), images))


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_every_part_of_vit_conv_matters(change: str) -> None:
    model, images = make()
    weights = model.state_dict()
    assert relative_difference(twin(weights, images, change), twin(weights, images)) > 0.01


def test_each_offset_has_its_own_number() -> None:
    offsets = relative_offsets(3)
    assert offsets.unique().tolist() == list(range(25))
    assert offsets.diagonal().unique().tolist() == [12]  # no offset: the table's centre


def test_new_biases_are_small_and_offsets_are_not_stored() -> None:
    torch.manual_seed(0)
    model = ViTConv(image_size=32, num_classes=10, **SIZES)
    biases = torch.cat([block.attention.attend.bias.flatten() for block in model.blocks])
    assert biases.std().item() == pytest.approx(0.02, rel=0.1)
    assert not [key for key in model.state_dict() if "offsets" in key]


@pytest.mark.parametrize("size", [30, 33, 34])
def test_size_that_the_stem_cannot_halve_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"halves the image size twice, and {size} is not"):
        ViTConv(image_size=size, num_classes=10, **SIZES)


def test_vit_conv_macs_by_hand() -> None:
    entry = load_params(EXAMPLE).models["vit_conv"]
    model = build_model(entry.architecture, num_classes=10, image_size=32)
    dim, inner, mlp = 192, 6 * 32, 384
    stem = 32**2 * 27 * 48 + 16**2 * 16 * 48 * 96 + 8**2 * 16 * 96 * 192
    block = 64 * (dim * 3 * inner + inner * dim + 2 * dim * mlp) + 2 * 64**2 * inner
    assert layer_table(model, 32).macs.sum() == stem + 6 * block + dim * 10
