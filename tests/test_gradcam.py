"""Grad-CAM against cases worked out by hand and by plain autograd, and every trap of the package.

The reference below asks autograd for the gradient at the layer's output and does the paper's two
sums an image at a time; it shares no code with grad-cam and finds tokens by their number.
"""

import math
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from cifarpipe.gradcam import (
    Maps,
    class_activation_maps,
    enlarge,
    without_evidence,
)
from cifarpipe.models.build import as_classifier, build_model
from cifarpipe.models.vit import ViT
from cifarpipe.params import Params

NAMES = ["vit", "vit_mean", "convmixer", "resnet18_ln"]
K = 5


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


class ConvNet(nn.Module):
    """A head that weighs every place on its own, behind what differs between the modes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, stride=8)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 4 * 4, K)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.conv(images)).relu().flatten(1)))


class TokenNet(nn.Module):
    """Tokens `[B, N, C]`, the class token first, as most vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, 6, 8, stride=8)
        self.class_token = nn.Parameter(torch.randn(1, 1, 6))
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(17, 17)
        self.head = nn.Linear(6, K)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embedding(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        mixed = self.mix(self.norm(tokens).tanh().mT).mT
        return self.head(mixed[:, 0].tanh())


@dataclass(frozen=True)
class Case:
    """A network, where its maps are taken, and images and classes to ask about."""

    model: nn.Module
    layer: nn.Module
    to_map: Callable[[Tensor], Tensor]
    cells: Callable[[Tensor], list[Tensor]]
    """Lists the `[C]` vector of each place of one image's output, row by row."""
    batch: Tensor
    classes: Tensor

    def maps(self) -> Maps:
        return class_activation_maps(self.model, self.layer, self.to_map, self.batch, self.classes)


def make_case(name: str, params: Params) -> Case:
    torch.manual_seed(0)
    batch, classes = torch.randn(6, 3, 32, 32), torch.tensor([2, 0, 4, 1, 3, 2])
    if name == "conv":
        model = ConvNet()
        where = model.norm, lambda output: output, picture_cells
    elif name == "tokens":
        model = TokenNet()
        where = model.norm, lambda output: output[:, 1:].mT.unflatten(2, (4, 4)), token_cells
    else:
        entry = params.models[name.removesuffix("_mean")]
        if name == "vit_mean":
            entry = entry.model_copy(update={"pool": "mean"})
        model = build_model(entry, num_classes=K, image_size=32)
        parts = as_classifier(model)
        cells = one_row_cells if "vit" in name else picture_cells
        where = parts.cam_layer, parts.cam_map, cells
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: not nought and one
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Case(model.eval(), *where, batch, classes)


def picture_cells(output: Tensor) -> list[Tensor]:
    _, height, width = output.shape
    return [output[:, row, column] for row in range(height) for column in range(width)]


def token_cells(output: Tensor) -> list[Tensor]:
    return [output[number] for number in range(1, len(output))]


def one_row_cells(output: Tensor) -> list[Tensor]:
    patches = output[:, 0, -64:]  # behind the class token, where there is one
    return list(patches.unbind(dim=1))


@pytest.fixture(params=["conv", "tokens", *NAMES])
def case(request: pytest.FixtureRequest, demo_params: Params) -> Case:
    return make_case(request.param, demo_params)


@pytest.fixture
def conv(demo_params: Params) -> Case:
    return make_case("conv", demo_params)


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


def hooks(model: nn.Module) -> int:
    return sum(
        len(found)
        for module in model.modules()
        for found in (
            module._forward_hooks, module._forward_pre_hooks,
            module._backward_hooks, module._backward_pre_hooks,
        )
    )  # fmt: skip


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


@pytest.mark.parametrize("name", NAMES)
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


# What is refused.


@pytest.mark.parametrize("count", [0, 1, 5, 7])
def test_a_class_for_each_image_is_wanted(case: Case, count: int) -> None:
    with pytest.raises(ValueError, match=rf"^{count} classes for 6 images$"):
        class_activation_maps(
            case.model, case.layer, case.to_map, case.batch,
            torch.zeros(count, dtype=torch.int64),
        )  # fmt: skip


@pytest.mark.parametrize("label", [K, 1000, -1, -K, -K - 1])
@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.usefixtures("no_finaliser")
def test_a_class_out_of_range_is_refused(conv: Case, label: int, place: int) -> None:
    conv.classes[place] = label
    conv.model.train()
    with pytest.raises(ValueError, match=r"a class (out of range|below 0)"):
        conv.maps()
    assert hooks(conv.model) == 0
    assert conv.model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_that_is_not_fp32_is_refused(conv: Case, dtype: torch.dtype) -> None:
    conv.model.head.to(dtype)
    with pytest.raises(ValueError, match=r"fp32: call model.float\(\) first"):
        conv.maps()
    conv.model.float()
    assert np.isfinite(conv.maps()).all()


# What is left as it was.


def test_the_mode_of_every_module_is_given_back(case: Case) -> None:
    """Mixed on purpose: `model.train()` afterwards would thaw what its owner froze."""
    modules = list(case.model.modules())
    for number, module in enumerate(modules):
        module.training = number % 3 == 0
    modes = [module.training for module in modules]
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    maps = case.maps()
    assert [module.training for module in modules] == modes
    after = case.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    case.model.eval()
    np.testing.assert_array_equal(maps, case.maps())  # taken in evaluation mode all the same


def test_gradients_are_given_back(case: Case) -> None:
    parameters = list(case.model.parameters())
    for parameter in parameters[::2]:
        parameter.grad = torch.randn_like(parameter)
    kept = [parameter.grad for parameter in parameters]
    values = [grad if grad is None else grad.clone() for grad in kept]
    case.maps()
    for parameter, grad, value in zip(parameters, kept, values, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)
        assert parameter.requires_grad
    assert case.batch.grad is None
    assert not case.batch.requires_grad


@pytest.fixture
def no_finaliser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the package's `__del__` away: when that runs, if ever, is up to the interpreter."""
    monkeypatch.delattr(BaseCAM, "__del__")


@pytest.mark.usefixtures("no_finaliser")
def test_no_hook_and_no_activation_stays(case: Case) -> None:
    seen: list[weakref.ref[Tensor]] = []

    def spy(output: Tensor) -> Tensor:
        seen.append(weakref.ref(output))
        return case.to_map(output)

    class_activation_maps(case.model, case.layer, spy, case.batch, case.classes)
    assert hooks(case.model) == 0
    assert len(seen) == 2  # the output and its gradient
    with torch.no_grad():
        case.model(case.batch)
    assert len(seen) == 2
    assert all(reference() is None for reference in seen)


class Bomb(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.usefixtures("no_finaliser")
def test_nothing_stays_after_an_exception_either(case: Case) -> None:
    class_activation_maps(case.model, case.layer, case.to_map, case.batch, case.classes)
    case.model.head = Bomb()
    case.model.train()
    first = next(case.model.parameters())
    first.grad = kept = torch.ones_like(first)
    with pytest.raises(ZeroDivisionError):
        case.maps()
    assert hooks(case.model) == 0
    assert all(module.training for module in case.model.modules())
    assert first.grad is kept


@pytest.mark.usefixtures("no_finaliser")
def test_nothing_stays_when_the_layout_fails(conv: Case) -> None:
    with pytest.raises(ZeroDivisionError):
        class_activation_maps(conv.model, conv.layer, lambda _: 1 / 0, conv.batch, conv.classes)  # type: ignore[arg-type,return-value]
    assert hooks(conv.model) == 0


# What the caller may have switched on or off.


def test_frozen_weights_do_not_matter(case: Case) -> None:
    expected = case.maps()
    case.model.requires_grad_(False)
    # PyTorch may compute what records nothing in another order.
    np.testing.assert_allclose(case.maps(), expected, rtol=1e-4, atol=1e-7)
    assert not any(parameter.requires_grad for parameter in case.model.parameters())


@pytest.mark.parametrize(
    "caller",
    [
        nullcontext,
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_the_callers_context_does_not_matter(
    case: Case, caller: Callable[[], AbstractContextManager[object]]
) -> None:
    expected = case.maps()
    with caller():
        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        batch = case.batch + 0.0  # made inside: under inference_mode it can't record gradients
        maps = class_activation_maps(case.model, case.layer, case.to_map, batch, case.classes)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == state
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, expected)


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
