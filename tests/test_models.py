"""The architectures: counted, compared with plain twins, and what activation maps rely on."""

from collections.abc import Callable

import einops
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params
from cifarpipe.models.build import as_classifier, build_model
from cifarpipe.models.convmixer import ConvMixer, DepthwiseConv2d
from cifarpipe.models.resnet18_ln import ResNet18LN
from cifarpipe.models.vit import ViT
from cifarpipe.training.cost import layer_table

DEFAULTS = load_params("params.yaml")
COUNTS = {
    "vit": 1_989_258 + 8_448,
    "vit_mean": 1_989_258 + 64 * 128,
    "vit_t2t": 3_722_250,
    "convmixer": 594_186,
    "resnet18_ln": 11_173_962,
    "resnet18_ln_plateau": 11_173_962,
}
EVERY_MODEL = pytest.mark.parametrize("name", DEFAULTS.models)


def build(params: Params, name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(params.models[name], num_classes=10, image_size=32)


@EVERY_MODEL
def test_default_models_have_exactly_the_parameters_of_the_design(name: str) -> None:
    model = build(DEFAULTS, name)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]
    assert layer_table(model, 32).parameters.sum() == COUNTS[name]


def test_vit_parameters_outside_its_layers() -> None:
    table = layer_table(build(DEFAULTS, "vit"), 32)
    outside = table[table.type == "Parameter"]
    assert dict(zip(outside.layer, outside.parameters, strict=True)) == {
        "class_token": 128,
        "positions": 65 * 128,
    }
    assert table[table.type != "Parameter"].parameters.sum() == 1_989_258


@pytest.mark.parametrize(("name", "tokens"), [("vit", 65), ("vit_mean", 64)])
def test_vit_macs_by_hand(name: str, tokens: int) -> None:
    dim, inner, mlp = 128, 8 * 64, 256
    block = tokens * (dim * 3 * inner + inner * dim + 2 * dim * mlp) + 2 * tokens**2 * inner
    by_hand = 64 * (4 * 4 * 3) * dim + 6 * block + dim * 10
    assert layer_table(build(DEFAULTS, name), 32).macs.sum() == by_hand


def test_resnet_macs_by_hand() -> None:
    def stage(channels_in: int, channels: int, side: int, shortcut: bool) -> int:
        first = 9 * channels_in * channels + (channels_in * channels if shortcut else 0)
        return side**2 * (first + 3 * 9 * channels**2)

    by_hand = (
        32**2 * 9 * 3 * 64
        + stage(64, 64, 32, shortcut=False)
        + stage(64, 128, 16, shortcut=True)
        + stage(128, 256, 8, shortcut=True)
        + stage(256, 512, 8, shortcut=True)
        + 512 * 10
    )
    assert layer_table(build(DEFAULTS, "resnet18_ln"), 32).macs.sum() == by_hand


def test_layer_table_leaves_the_model_as_it_was() -> None:
    model = build(DEFAULTS, "convmixer").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer_table(model, 32)
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class LinearViT(nn.Module):
    """The same network written the usual way: tokens `[B, N, C]` and `nn.Linear`."""

    def __init__(self, depth: int, dim: int, heads: int, head_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(4 * 4 * 3, dim)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention_norm": nn.LayerNorm(dim),
                    "qkv": nn.Linear(dim, 3 * heads * head_dim),
                    "out": nn.Linear(heads * head_dim, dim),
                    "mlp_norm": nn.LayerNorm(dim),
                    "up": nn.Linear(dim, mlp_dim),
                    "down": nn.Linear(mlp_dim, dim),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def take_weights(self, model: ViT) -> None:
        def take(ours: nn.Module, theirs: nn.Module) -> None:
            ours.weight.data = theirs.weight.data.reshape(ours.weight.shape)
            ours.bias.data = theirs.bias.data

        take(self.embed, model.patch_embedding)
        for ours, theirs in zip(self.blocks, model.blocks, strict=True):
            take(ours["attention_norm"], theirs.attention_norm)
            take(ours["qkv"], theirs.attention.to_qkv)
            take(ours["out"], theirs.attention.to_out)
            take(ours["mlp_norm"], theirs.mlp_norm)
            take(ours["up"], theirs.mlp[0])
            take(ours["down"], theirs.mlp[3])
        take(self.norm, model.norm)
        take(self.head, model.head)
        self.class_token = model.class_token.data.reshape(1, 1, -1)
        self.positions = model.positions.data[0, :, 0].T

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # The order of a convolution's weight: channel, then row, then column.
        patches = einops.rearrange(images, "b c (h y) (w x) -> b (h w) (c y x)", y=4, x=4)
        x = torch.cat([self.class_token.expand(len(images), 1, -1), self.embed(patches)], dim=1)
        x = x + self.positions
        for block in self.blocks:
            qkv = block["qkv"](block["attention_norm"](x)).chunk(3, dim=-1)
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in qkv)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + block["out"](mixed.transpose(1, 2).flatten(2))
            x = x + block["down"](nn.functional.gelu(block["up"](block["mlp_norm"](x))))
        return self.head(self.norm(x)[:, 0])


def test_vit_equals_a_plain_linear_vit_with_the_same_weights() -> None:
    entry = DEFAULTS.models["vit"]
    model = build(DEFAULTS, "vit").eval()
    for parameter in model.parameters():  # norms too, which start at one and zero
        nn.init.normal_(parameter, std=0.05)
    twin = LinearViT(entry.depth, entry.dim, entry.heads, entry.head_dim, entry.mlp_dim).eval()
    twin.take_weights(model)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), twin(images), atol=1e-5, rtol=1e-4)


def test_resnet_equals_torchvisions_blocks_with_the_same_weights() -> None:
    model = ResNet18LN(num_classes=10, width=16, strides=(1, 2, 2, 1)).eval()
    twin = torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock,
        [2, 2, 2, 2],
        num_classes=10,
        norm_layer=lambda channels: nn.GroupNorm(1, channels),
    )
    twin.conv1, twin.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    last = twin.layer4[0]  # torchvision's last stage halves the map, ours keeps it
    last.conv1.stride = last.downsample[0].stride = (1, 1)
    wide = ResNet18LN(num_classes=10).eval()
    ours, theirs = list(wide.state_dict().values()), twin.state_dict()
    assert [value.shape for value in ours] == [value.shape for value in theirs.values()]
    for parameter in wide.parameters():
        nn.init.normal_(parameter, std=0.05)
    twin.load_state_dict(dict(zip(theirs, wide.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(wide(images), twin.eval()(images), atol=1e-4, rtol=1e-3)
        assert model(images).shape == (2, 10)


@EVERY_MODEL
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = build(DEFAULTS, name)
    model(torch.randn(8, 3, 32, 32)).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@EVERY_MODEL
def test_features_and_head_make_the_model(name: str) -> None:
    model = build(DEFAULTS, name).eval()
    images = torch.randn(3, 3, 32, 32)
    parts = as_classifier(model)
    with torch.no_grad():
        assert torch.equal(model(images), parts.forward_head(parts.forward_features(images)))


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: [build(DEFAULTS, "vit").blocks[i].mlp[0].weight for i in (0, 1)],
        lambda: [build(DEFAULTS, "convmixer").blocks[i][1].weight for i in (0, 1)],
        lambda: [build(DEFAULTS, "resnet18_ln").stages[0][i].conv1.weight for i in (0, 1)],
    ],
)
def test_blocks_differ_at_the_start(blocks: Callable[[], list[torch.Tensor]]) -> None:
    first, second = blocks()
    assert not torch.equal(first, second)


@EVERY_MODEL
def test_the_layer_of_the_maps_is_laid_out_as_the_picture(name: str) -> None:
    """Change one patch: the map must change most in the cell that sees it.

    This tells a wrong reshape (tokens taken for channels, rows for columns) from a right one.
    """
    model = build(DEFAULTS, name).eval()
    parts = as_classifier(model)
    seen: list[torch.Tensor] = []
    parts.cam_layer.register_forward_hook(lambda _, __, output: seen.append(output))
    image = torch.zeros(1, 3, 32, 32)
    row, column = 9, 22  # off the diagonal, so that a transposed map is found out
    changed = image.clone()
    changed[..., row - 1 : row + 2, column - 1 : column + 2] += 3
    with torch.no_grad():
        model(image)
        model(changed)
    before, after = (parts.cam_map(output) for output in seen)
    assert before.ndim == 4
    height, width = before.shape[2:]
    assert height == width >= 8
    difference = F.adaptive_avg_pool2d((after - before).norm(dim=1), 8)[0]
    found = divmod(int(difference.argmax()), 8)
    assert found == (row * 8 // 32, column * 8 // 32)


@EVERY_MODEL
def test_later_layers_matter_to_the_logits(name: str) -> None:
    """The gradient at the layer of the maps is not zero, as it is past a ViT's last mix."""
    model = build(DEFAULTS, name).eval()
    parts = as_classifier(model)
    gradients: list[torch.Tensor] = []
    parts.cam_layer.register_forward_hook(
        lambda _, __, output: output.register_hook(gradients.append) and None
    )
    model(torch.randn(2, 3, 32, 32))[:, 0].sum().backward()
    per_cell = parts.cam_map(gradients[0]).abs().sum(dim=1)
    assert (per_cell > 0).float().mean() > 0.9


def test_dropout_is_off_in_evaluation() -> None:
    model = ViT(
        image_size=8, num_classes=3, patch=4, dim=8, depth=1, heads=2, head_dim=4, mlp_dim=8,
        dropout=0.5,
    )  # fmt: skip
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", ["vit", "convmixer"])
def test_a_patch_that_does_not_fit_is_the_users_mistake(name: str) -> None:
    with pytest.raises(UserError, match=r"patch .* does not divide the image size 30"):
        build_model(
            DEFAULTS.models[name].model_copy(update={"patch": 4}), num_classes=10, image_size=30
        )


def test_depthwise_convolutions_are_pytorchs_and_fp32_on_a_cpu() -> None:
    torch.manual_seed(0)
    conv = DepthwiseConv2d(6, 5)
    twin = nn.Conv2d(6, 6, 5, padding=2, groups=6)
    twin.load_state_dict(conv.state_dict())
    x = torch.randn(2, 6, 9, 9)
    expected = twin(x)
    assert torch.equal(conv(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = conv(x.bfloat16())
        rough = twin(x)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, twin(x.bfloat16().float()).bfloat16())
    assert not torch.equal(rounded, rough)  # else nothing is shown
    rounded.float().sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


def test_convmixer_keeps_its_resolution() -> None:
    model = ConvMixer(image_size=32, num_classes=10, patch=2, dim=8, depth=2, kernel=5)
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape == (1, 8, 16, 16)
