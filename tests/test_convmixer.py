"""ConvMixer compared with one written with functions, in double precision."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.models.convmixer import ConvMixer, kernel_covariance
from tests.support.network_weights import (
    lower_gelu_input,
    randomise_weights,
    relative_difference,
)

SIZES = {"patch": 2, "dim": 12, "depth": 3, "kernel": 5}
# Changes of the twin; each must change the logits, or the comparison could not see it.
CHANGES = [
    "no residual",
    "residual around the whole block",
    "residual before the norm",
    "tanh GELU",
    "norm before GELU",
    "no stem norm",
    "no depthwise norm",
    "no pointwise norm",
    "batch statistics",
    "circular padding",
    "maximum over positions",
]


def twin(weights: dict[str, Tensor], images: Tensor, change: str | None = None) -> Tensor:
    """Compute a ConvMixer's logits, following section 2 of arXiv:2201.09792.

    Args:
        weights: A network's state dict.
        images: `[B, 3, H, W]`.
        change: One of `CHANGES`.
    """
    approximate = "tanh" if change == "tanh GELU" else "none"

    def norm(x: Tensor, name: str, kind: str) -> Tensor:
        if change == f"no {kind} norm":
            return x
        weight, bias, mean, variance = (
            weights[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        )
        if change == "batch statistics":
            mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        scale = weight / (variance + 1e-5).sqrt()
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    def activate(x: Tensor, name: str, kind: str) -> Tensor:
        if change == "norm before GELU":
            return F.gelu(norm(x, name, kind), approximate=approximate)
        return norm(F.gelu(x, approximate=approximate), name, kind)

    x = F.conv2d(images, weights["stem.0.weight"], weights["stem.0.bias"], stride=SIZES["patch"])
    x = activate(x, "stem.2", "stem")
    for number in range(SIZES["depth"]):
        block = f"blocks.{number}"
        before, reach = x, SIZES["kernel"] // 2
        mode = "circular" if change == "circular padding" else "constant"
        kernel, bias = weights[f"{block}.0.0.weight"], weights[f"{block}.0.0.bias"]
        x = F.conv2d(F.pad(x, (reach,) * 4, mode), kernel, bias, groups=SIZES["dim"])
        if change == "residual before the norm":
            x = norm(F.gelu(x) + before, f"{block}.0.2", "depthwise")
        else:
            x = activate(x, f"{block}.0.2", "depthwise")
            if change not in {"no residual", "residual around the whole block"}:
                x = x + before
        x = F.conv2d(x, weights[f"{block}.1.weight"], weights[f"{block}.1.bias"])
        x = activate(x, f"{block}.3", "pointwise")
        if change == "residual around the whole block":
            x = x + before
    pooled = x.amax(dim=(2, 3)) if change == "maximum over positions" else x.mean(dim=(2, 3))
    return F.linear(pooled, weights["head.weight"], weights["head.bias"])


def make() -> tuple[ConvMixer, Tensor]:
    """Return a network in which every part matters, and images."""
    model = ConvMixer(image_size=16, num_classes=7, **SIZES).double()
    randomise_weights(model)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 3, 16, 16, generator=generator, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            lower_gelu_input(module, mean=-2.5, scale=0.3)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics become those of the next batch
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 16, 16, generator=generator, dtype=torch.float64))
    return model.eval(), images


@torch.no_grad()
def test_convmixer_equals_functional_twin() -> None:
    model, images = make()
    torch.testing.assert_close(model(images), twin(model.state_dict(), images))


@torch.no_grad()
def test_convmixer_equals_twin_in_training() -> None:
    model, images = make()
    expected = twin(model.state_dict(), images, "batch statistics")
    torch.testing.assert_close(model.train()(images), expected)


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_every_part_of_convmixer_matters(change: str) -> None:
    model, images = make()
    weights = model.state_dict()
    assert relative_difference(twin(weights, images, change), twin(weights, images)) > 0.01


def test_convmixer_keeps_its_resolution() -> None:
    model = ConvMixer(image_size=32, num_classes=10, patch=2, dim=8, depth=2, kernel=5)
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape == (1, 8, 16, 16)


def test_covariance_of_kernels_by_hand() -> None:
    """Of the centre, its right neighbour and a corner of 3 × 3 weights, at a variance of 1 / 2."""
    found = kernel_covariance(3, 0.5)
    centre, right, corner = 4, 5, 0
    w = math.exp(-1)  # of a neighbour: exp(-1 / (2 * 0.5)); of a corner, w²
    assert float(found[centre, centre]) == pytest.approx(1 - (1 + 1) / 4)
    assert float(found[centre, right]) == pytest.approx(w * (w - (1 + w) / 4))
    assert float(found[right, corner]) == pytest.approx(w * w**2 * (w**5 - (w + w**2) / 4))
    torch.testing.assert_close(found, found.T)
    assert torch.linalg.eigvalsh(found).min() > 0


def test_kernels_have_their_covariance() -> None:
    torch.manual_seed(0)
    model = ConvMixer(
        image_size=8, num_classes=2, patch=4, dim=1500, depth=3, kernel=3, init="covariance"
    )
    for block, variance in zip(model.blocks, (0.16, 0.68, 1.92), strict=True):
        kernels = block[0][0].weight.detach().flatten(1).double()
        expected = kernel_covariance(3, variance)
        found = kernels.T @ kernels / len(kernels)
        # Four standard deviations, for the largest variance: 0.5.
        assert (found - expected).abs().max() < 4 * 0.5 * math.sqrt(2 / len(kernels))


def test_other_layers_start_as_without_covariance() -> None:
    networks = []
    for init in (None, "covariance"):
        torch.manual_seed(0)
        networks.append(ConvMixer(image_size=8, num_classes=2, **SIZES, init=init))
    plain, smooth = networks
    kernels = {f"blocks.{number}.0.0.weight" for number in range(SIZES["depth"])}
    different = {
        name for name, value in plain.state_dict().items()
        if not torch.equal(value, smooth.state_dict()[name])
    }  # fmt: skip
    assert different == kernels
