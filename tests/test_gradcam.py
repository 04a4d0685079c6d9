"""Grad-CAM compared with a case computed by hand and with plain autograd.

The reference below takes the gradient at the layer's output from autograd and computes the paper's
two sums for one image at a time. It shares no code with grad-cam and finds tokens by their number.
"""

import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from cifarpipe.config.schema import Params
from cifarpipe.explanations.gradcam import class_activation_maps
from cifarpipe.explanations.upsampling import upsample
from cifarpipe.models.vit import ViT
from cifarpipe.results.maps import Maps, without_evidence
from tests.support.gradcam_cases import NETWORKS, Case, K, make_case


class ByHand(nn.Module):
    """An identity layer, and a head whose weights are integers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(8, 2, bias=False)
        # Of each class: channel 0 at four positions, then channel 1 at four positions.
        weights = [[1, 2, 3, 2, -1, -1, 0, -2], [0, 0, 4, 0, 1, 1, 1, 1]]
        self.head.weight.data = torch.tensor(weights, dtype=torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer(images[:, :2]).flatten(1))


@pytest.fixture(params=["conv", "tokens", *NETWORKS])
def case(request: pytest.FixtureRequest, demo_params: Params) -> Case:
    return make_case(request.param, demo_params)


@pytest.fixture
def vit(demo_params: Params) -> Case:
    return make_case("vit", demo_params)


def reference_maps(case: Case) -> Maps:
    outputs: list[Tensor] = []
    handle = case.layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    maps = []
    for image, label in zip(case.batch, case.classes.tolist(), strict=True):
        logits = case.model(image[None])
        output = outputs.pop()
        (gradient,) = torch.autograd.grad(logits[0, label], output)
        weights = torch.stack(case.cells(gradient[0])).mean(dim=0)
        evidence = [float(weights @ cell) for cell in case.cells(output[0].detach())]
        side = math.isqrt(len(evidence))
        maps.append(np.reshape(evidence, (side, side)))
    handle.remove()
    return np.array(maps, np.float32)


def assert_close(maps: Maps, expected: Maps) -> None:
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


# Values of the maps.


def test_maps_by_hand() -> None:
    """The channels' weights are (1+2+3+2)/4 = 2 and (-1-1+0-2)/4 = -1; for class 1, both are 1."""
    image = torch.tensor([[[1.0, -2.0], [3.0, 4.0]], [[2.0, 0.0], [0.0, -2.0]], [[9.0, 9.0]] * 2])
    model = ByHand()
    maps = class_activation_maps(
        model, model.layer, lambda output: output, torch.stack([image, image]), torch.tensor([0, 1])
    )
    assert maps.dtype == np.float32
    assert maps.tolist() == [[[0, -4], [6, 10]], [[3, -2], [3, 2]]]


def test_maps_equal_plain_autograd(case: Case) -> None:
    expected = reference_maps(case)
    assert expected.min() < 0 < expected.max()  # signed
    assert_close(case.maps(), expected)


def test_processed_maps_equal_those_of_grad_cam(case: Case) -> None:
    targets = [ClassifierOutputTarget(label) for label in case.classes.tolist()]
    with GradCAM(case.model, [case.layer], reshape_transform=case.to_map) as package:
        theirs = package(case.batch, targets)

    def scale(maps: Maps) -> Maps:
        """Scale each map to 0 to 1."""
        flat = maps.reshape(len(maps), -1)
        low, high = (bound[:, None, None] for bound in (flat.min(axis=1), flat.max(axis=1)))
        return (maps - low) / (high - low + 1e-7)

    maps = case.maps()
    positive = ~without_evidence(maps)
    assert positive.sum() >= 3
    found = scale(upsample(scale(np.maximum(maps[positive], 0)), 32))
    np.testing.assert_allclose(found, theirs[positive], atol=1e-3)


def test_difference_of_maps_is_map_of_difference(case: Case) -> None:
    """Maps of two classes are comparable: their difference explains the logits' difference."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = case.model

        def forward(self, images: Tensor) -> Tensor:
            logits = self.model(images)
            return logits[:, 1:2] - logits[:, 3:4]

    first, second = (
        class_activation_maps(
            case.model, case.layer, case.to_map, case.batch, torch.full((6,), label)
        )
        for label in (1, 3)
    )
    contrast = class_activation_maps(
        Difference().eval(), case.layer, case.to_map, case.batch, torch.zeros(6, dtype=torch.int64)
    )
    assert_close(first - second, contrast)
    assert not np.allclose(first, second, rtol=1e-2)


def test_doubled_head_doubles_the_maps(case: Case) -> None:
    """grad-cam's own scaling would hide this."""
    before = case.maps()
    with torch.no_grad():
        for parameter in case.model.head.parameters():
            parameter *= 2
    after = case.maps()
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-7)
    assert np.abs(before).max() > 1e-4  # otherwise the comparison is trivial


def test_maps_of_batch_equal_single_images(case: Case) -> None:
    single = [
        class_activation_maps(
            case.model, case.layer, case.to_map, case.batch[[i]], case.classes[[i]]
        )
        for i in range(6)
    ]
    assert_close(case.maps(), np.concatenate(single))


# The layer and its layout.


@pytest.mark.parametrize("late", ["blocks.2", "blocks.2.mlp_norm", "blocks.2.mlp"])
def test_maps_after_last_attention_are_zero(vit: Case, late: str) -> None:
    assert len(vit.model.blocks) == 3
    layer = vit.model.get_submodule(late)
    maps = class_activation_maps(vit.model, layer, vit.to_map, vit.batch, vit.classes)
    assert maps.shape == (6, 8, 8)
    assert (maps == 0).all()
    assert without_evidence(maps).all()


def test_mean_pooled_vit_map_sums_to_logit() -> None:
    torch.manual_seed(0)
    model = ViT(
        image_size=32, num_classes=K, patch=4, dim=8, depth=2, heads=2, head_dim=4, mlp_dim=8,
        pool="mean",
    ).eval()  # fmt: skip
    nn.init.normal_(model.head.bias)
    batch, classes = torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 4])
    maps = class_activation_maps(model, model.cam_layer, model.cam_map, batch, classes)
    assert maps.shape == (3, 8, 8)
    logits = model(batch).gather(1, classes[:, None])[:, 0] - model.head.bias[classes]
    assert_close(maps.sum(axis=(1, 2)), logits.detach().numpy())


@pytest.mark.parametrize("name", NETWORKS)
def test_selected_layer_has_evidence_everywhere(name: str, demo_params: Params) -> None:
    maps = make_case(name, demo_params).maps()
    assert min(maps.shape[1:]) >= 8  # 4 × 4 is too coarse for 32 × 32 pixels
    assert (maps != 0).mean() > 0.9
    assert not without_evidence(maps).all()


def test_wrong_layout_gives_other_maps_without_error(vit: Case) -> None:
    """Channels taken for tokens; the comparison with autograd must notice it."""

    def wrong(activation: Tensor) -> Tensor:
        tokens = activation[:, 1:]  # [B, N, C]
        return tokens.reshape(len(tokens), -1, 8, 8)

    expected = vit.maps()
    striped = class_activation_maps(vit.model, vit.layer, wrong, vit.batch, vit.classes)
    assert striped.shape == expected.shape
    assert abs(np.corrcoef(striped.ravel(), expected.ravel())[0, 1]) < 0.3
    assert_close(expected, reference_maps(vit))


def test_single_relevant_patch_is_located() -> None:
    """All patches but (1, 2) are zero, so that only it can hold evidence."""
    torch.manual_seed(0)
    model = ViT(
        image_size=16, num_classes=2, patch=4, dim=8, depth=1, heads=1, head_dim=8, mlp_dim=8
    ).eval()
    batch = torch.zeros(1, 3, 16, 16)
    batch[..., 4:8, 8:12] = 3.0
    nn.init.zeros_(model.positions)
    nn.init.zeros_(model.patch_embedding.bias)
    maps = class_activation_maps(model, model.cam_layer, model.cam_map, batch, torch.tensor([0]))
    other = np.delete(maps.ravel(), 1 * 4 + 2)
    assert (other == 0).all()
    assert maps[0, 1, 2] != 0


# Processing of the maps.


def test_upsampling_by_hand() -> None:
    """Bilinear between the centres of the cells, constant outside them."""
    across = np.array([[1, 0.75, 0.25, 0], [0, 0.25, 0.75, 1]])
    cell = np.array([[1, 2], [3, -4]], np.float32)
    expected = across.T @ cell @ across
    np.testing.assert_allclose(upsample(cell[None], 4)[0], expected, rtol=1e-6)


def test_upsampling_equals_pytorch() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    reference = nn.Upsample(size=(32, 32), mode="bilinear")
    large = upsample(maps, 32)
    assert large.shape == (5, 32, 32)
    np.testing.assert_allclose(large, reference(torch.from_numpy(maps)[None])[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(upsample(maps[:, ::-1].transpose(0, 2, 1), 8).mT, maps[:, ::-1])
