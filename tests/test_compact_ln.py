"""The compact network compared with a functional twin in `[B, C, H, W]` layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.config.reader import load_params
from cifarpipe.models.build import build_model
from cifarpipe.models.compact_ln import CompactLN
from cifarpipe.training.cost import layer_table
from tests.support.network_weights import (
    lower_gelu_input,
    randomise_weights,
    relative_difference,
)
from tests.support.params_text import EXAMPLE

SIZES = {"stem": 6, "dims": (8, 12), "depths": (2, 1), "kernel": 5, "expansion": 3}
# Changes of the twin; each must change the logits, or the comparison could not see it.
CHANGES = [
    "no first norm",
    "no GELU in the stem",
    "no residual",
    "no norm in a block",
    "no norm between stages",
    "no last norm",
    "norm over height and width too",
    "norm before the mean",
    "tanh GELU",
    "circular padding",
]


def twin(weights: dict[str, Tensor], images: Tensor, change: str | None = None) -> Tensor:
    """Compute the network's logits.

    Args:
        weights: A network's state dict.
        images: `[B, 3, H, W]`.
        change: One of `CHANGES`.
    """

    def parameters(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def norm(x: Tensor, name: str, without: str) -> Tensor:
        if change == without:
            return x
        weight, bias = (each.view(-1, 1, 1) for each in parameters(name))
        over = (1, 2, 3) if change == "norm over height and width too" else (1,)
        variance, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def block(x: Tensor, name: str) -> Tensor:
        reach, mode = SIZES["kernel"] // 2, "constant"
        if change == "circular padding":
            mode = "circular"
        padded = F.pad(x, (reach,) * 4, mode)
        h = F.conv2d(padded, *parameters(f"{name}.depthwise.0"), groups=x.shape[1])
        h = F.conv2d(norm(h, f"{name}.norm", "no norm in a block"), *parameters(f"{name}.mlp.0"))
        h = F.gelu(h, approximate="tanh" if change == "tanh GELU" else "none")
        h = F.conv2d(h, *parameters(f"{name}.mlp.2"))
        return h if change == "no residual" else x + h

    x = F.conv2d(images, *parameters("layers.0.0"), padding=1)
    if change != "no GELU in the stem":
        x = F.gelu(x)
    x = norm(x, "layers.2", "no first norm")
    x = F.conv2d(x, *parameters("layers.3.0"), stride=2)
    x = block(block(x, "layers.4"), "layers.5")
    x = norm(x, "layers.6", "no norm between stages")
    x = block(F.conv2d(x, *parameters("layers.7.0"), stride=2), "layers.8")
    if change == "norm before the mean":
        pooled = norm(x, "norm", "").mean(dim=(2, 3), keepdim=True)
    else:
        pooled = norm(x.mean(dim=(2, 3), keepdim=True), "norm", "no last norm")
    return F.linear(pooled.flatten(1), *parameters("head"))


def make() -> tuple[CompactLN, Tensor]:
    """Return a network in which every part matters, and images."""
    model = CompactLN(image_size=16, num_classes=7, **SIZES)
    randomise_weights(model)
    with torch.no_grad():
        for layer in model.layers:
            if hasattr(layer, "mlp"):
                lower_gelu_input(layer.mlp[0], mean=-3.5, scale=0.5)
                layer.mlp[2].weight *= 400  # since the GELU of −3.5 is small
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return model.double().eval(), images.double()


@torch.no_grad()
def test_compact_network_equals_functional_twin() -> None:
    model, images = make()
    torch.testing.assert_close(model(images), twin(model.state_dict(), images))


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_every_part_of_compact_network_matters(change: str) -> None:
    model, images = make()
    weights = model.state_dict()
    assert relative_difference(twin(weights, images, change), twin(weights, images)) > 0.01


def test_every_norm_is_a_layer_norm() -> None:
    model = CompactLN(image_size=16, num_classes=7, **SIZES)
    norms = [layer for layer in model.modules() if "Norm" in type(layer).__name__]
    assert len(norms) == 1 + 3 + 1 + 1
    assert all(type(layer) is nn.LayerNorm for layer in norms)


def test_dims_and_depths_differing_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 1 `dims`, but 2 `depths`"):
        CompactLN(image_size=16, num_classes=7, **(SIZES | {"dims": (8,)}))


def test_compact_network_macs_by_hand() -> None:
    entry = load_params(EXAMPLE).models["compact_ln"]
    model = build_model(entry.architecture, num_classes=10, image_size=32)
    stem = 32**2 * 27 * 32 + 16**2 * 4 * 32 * 48
    first = 16**2 * 4 * (7**2 * 48 + 2 * 2 * 48**2)
    second = 8**2 * (4 * 48 * 80 + 3 * (7**2 * 80 + 2 * 2 * 80**2))
    assert layer_table(model, 32).macs.sum() == stem + first + second + 80 * 10


@torch.no_grad()
def test_number_of_stages_is_free() -> None:
    for count in (1, 3):
        sizes = SIZES | {"dims": (8, 12, 10)[:count], "depths": (1, 1, 1)[:count]}
        model = CompactLN(image_size=32, num_classes=7, **sizes).eval()
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
