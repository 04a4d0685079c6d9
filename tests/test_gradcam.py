"""Grad-CAM against cases worked out by hand and by plain autograd.

The reference below asks autograd for the gradient at the layer's output and does the paper's two
sums an image at a time; it shares no code with grad-cam and finds tokens by their number.
"""

import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from cifarpipe.config.schema import Params
from cifarpipe.explanations.gradcam import (
    Maps,
    class_activation_maps,
    enlarge,
    without_evidence,
)
from cifarpipe.models.vit import ViT
from tests.support.gradcam_setting import ARCHITECTURES, Case, K, make_case


class ByHand(nn.Module):
    """A layer that hands its input on, and a head whose weights are whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(8, 2, bias=False)
        # Of each class: channel 0 at its four places, channel 1 at its four places.
        weights = [[1, 2, 3, 2, -1, -1, 0, -2], [0, 0, 4, 0, 1, 1, 1, 1]]
        self.head.weight.data = torch.tensor(weights, dtype=torch.float32)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer(images[:, :2]).flatten(1))


@pytest.fixture(params=["conv", "tokens", *ARCHITECTURES])
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


# What the maps are.


def test_maps_by_hand() -> None:
    """Class 0 weighs the channels (1+2+3+2)/4 = 2 and (-1-1+0-2)/4 = -1; class 1 weighs both 1."""
    image = torch.tensor([[[1.0, -2.0], [3.0, 4.0]], [[2.0, 0.0], [0.0, -2.0]], [[9.0, 9.0]] * 2])
    model = ByHand()
    maps = class_activation_maps(
        model, model.layer, lambda output: output, torch.stack([image, image]), torch.tensor([0, 1])
    )
    assert maps.dtype == np.float32
    assert maps.tolist() == [[[0, -4], [6, 10]], [[3, -2], [3, 2]]]


def test_maps_are_those_of_plain_autograd(case: Case) -> None:
    expected = reference_maps(case)
    assert expected.min() < 0 < expected.max()  # signed: neither side is cut off
    assert_close(case.maps(), expected)


def test_the_packages_own_maps_are_ours_cut_off_scaled_and_enlarged(case: Case) -> None:
    targets = [ClassifierOutputTarget(label) for label in case.classes.tolist()]
    with GradCAM(case.model, [case.layer], reshape_transform=case.to_map) as package:
        theirs = package(case.batch, targets)

    def spread(maps: Maps) -> Maps:
        """Bring each map to 0 … 1 on its own."""
        flat = maps.reshape(len(maps), -1)
        low, high = (bound[:, None, None] for bound in (flat.min(axis=1), flat.max(axis=1)))
        return (maps - low) / (high - low + 1e-7)

    maps = case.maps()
    positive = ~without_evidence(maps)
    assert positive.sum() >= 3
    ours = spread(enlarge(spread(np.maximum(maps[positive], 0)), 32))
    np.testing.assert_allclose(ours, theirs[positive], atol=1e-3)


def test_maps_of_one_image_can_be_compared_between_classes(case: Case) -> None:
    """Their difference is the map of the difference of the logits: why this rather than that."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = case.model

        def forward(self, images: Tensor) -> Tensor:
            logits = self.model(images)
            return logits[:, 1:2] - logits[:, 3:4]

    this, that = (
        class_activation_maps(
            case.model, case.layer, case.to_map, case.batch, torch.full((6,), label)
        )
        for label in (1, 3)
    )
    contrast = class_activation_maps(
        Difference().eval(), case.layer, case.to_map, case.batch, torch.zeros(6, dtype=torch.int64)
    )
    assert_close(this - that, contrast)
    assert not np.allclose(this, that, rtol=1e-2)


def test_raw_magnitude_is_kept(case: Case) -> None:
    """Twice the head, twice the evidence; the package's own scaling would hide it."""
    before = case.maps()
    with torch.no_grad():
        for parameter in case.model.head.parameters():
            parameter *= 2
    after = case.maps()
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-7)
    assert np.abs(before).max() > 1e-4  # else the comparison would say little


def test_images_do_not_change_each_others_maps(case: Case) -> None:
    alone = [
        class_activation_maps(
            case.model, case.layer, case.to_map, case.batch[[i]], case.classes[[i]]
        )
        for i in range(6)
    ]
    assert_close(case.maps(), np.concatenate(alone))


# The layer and its layout.


@pytest.mark.parametrize("late", ["blocks.2", "blocks.2.mlp_norm", "blocks.2.mlp"])
def test_past_a_vits_last_attention_every_map_is_zero(vit: Case, late: str) -> None:
    assert len(vit.model.blocks) == 3
    layer = vit.model.get_submodule(late)
    maps = class_activation_maps(vit.model, layer, vit.to_map, vit.batch, vit.classes)
    assert maps.shape == (6, 8, 8)
    assert (maps == 0).all()
    assert without_evidence(maps).all()  # which is how the report would tell


def test_a_vit_without_class_token_adds_its_map_up_to_the_logit() -> None:
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_chosen_layer_has_evidence_all_over(name: str, demo_params: Params) -> None:
    maps = make_case(name, demo_params).maps()
    assert min(maps.shape[1:]) >= 8  # 4 × 4 says nearly nothing of 32 × 32
    assert (maps != 0).mean() > 0.9
    assert not without_evidence(maps).all()


def test_a_wrong_layout_makes_stripes_and_no_error(vit: Case) -> None:
    """Channels taken for tokens: what the tests of the layout above are there to find out."""

    def wrong(activation: Tensor) -> Tensor:
        tokens = activation[..., 1:].permute(0, 3, 1, 2)  # [B, N, 1, C]
        return tokens.reshape(len(tokens), -1, 8, 8)

    right = vit.maps()
    striped = class_activation_maps(vit.model, vit.layer, wrong, vit.batch, vit.classes)
    assert striped.shape == right.shape
    assert abs(np.corrcoef(striped.ravel(), right.ravel())[0, 1]) < 0.3
    assert_close(right, reference_maps(vit))


def test_a_patch_that_alone_matters_lies_where_it_is() -> None:
    """A token net that reads patch (1, 2) alone: nothing else can hold evidence."""
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


# What is made of the maps.


def test_maps_without_evidence_are_counted_not_guessed() -> None:
    maps = np.zeros((5, 2, 2), np.float32)
    maps[1] = -1
    maps[2, 0, 1] = 1e-12  # little is not none
    maps[3] = [[-5, -5], [-5, 0.1]]
    assert without_evidence(maps).tolist() == [True, True, False, False, True]


def test_enlarging_by_hand() -> None:
    """Bilinear between the middles of the cells, constant outside them."""
    across = np.array([[1, 0.75, 0.25, 0], [0, 0.25, 0.75, 1]])
    cell = np.array([[1, 2], [3, -4]], np.float32)
    expected = across.T @ cell @ across
    np.testing.assert_allclose(enlarge(cell[None], 4)[0], expected, rtol=1e-6)


def test_enlarging_is_torchs_and_keeps_magnitude() -> None:
    maps = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    upsample = nn.Upsample(size=(32, 32), mode="bilinear")
    big = enlarge(maps, 32)
    assert big.shape == (5, 32, 32)
    np.testing.assert_allclose(big, upsample(torch.from_numpy(maps)[None])[0].numpy(), atol=1e-6)
    np.testing.assert_array_equal(enlarge(maps[:, ::-1].transpose(0, 2, 1), 8).mT, maps[:, ::-1])
