"""What all architectures share: parameters, gradients, features and the layer of the maps."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import ModelEntry
from cifarpipe.models.build import Classifier, build_model
from cifarpipe.networks.devices import memory_format
from cifarpipe.training import execution
from tests.support.params_text import EXAMPLE

PARAMS = load_params("params.yaml")
OWN = PARAMS.models
SIZE = PARAMS.data.image_size or 32
DEFAULTS = load_params(EXAMPLE).models
PARAMETERS = {
    "vit": 1_989_258 + 8_448,
    "vit_t2t": 3_722_250,
    "vit_conv": 2_162_974,
    "convmixer": 594_186,
    "compact_ln": 161_082,
    "resnet18_ln": 11_173_962,
    "resnet18_ln_plateau": 11_173_962,
}
EXAMPLES = pytest.mark.parametrize("entry", DEFAULTS.values(), ids=list(DEFAULTS))
EVERY_MODEL = pytest.mark.parametrize("entry", OWN.values(), ids=list(OWN))


def build(entry: ModelEntry, image_size: int = 32) -> Classifier:
    torch.manual_seed(0)
    return build_model(entry.architecture, num_classes=10, image_size=image_size)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_networks_have_their_parameter_counts(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in build(DEFAULTS[name]).parameters()) == count


@pytest.mark.thorough
@EVERY_MODEL
def test_every_parameter_gets_a_gradient(entry: ModelEntry) -> None:
    model = build(entry, SIZE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01  # some are 0 at first, and keep gradients from those before them
    model(torch.randn(8, 3, SIZE, SIZE)).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@EVERY_MODEL
def test_features_and_head_make_the_logits(entry: ModelEntry) -> None:
    model = build(entry, SIZE).eval()
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(model(images), model.forward_head(model.forward_features(images)))


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: [build(DEFAULTS["vit"]).blocks[i].mlp[0].weight for i in (0, 1)],
        lambda: [build(DEFAULTS["convmixer"]).blocks[i][1].weight for i in (0, 1)],
        lambda: [build(DEFAULTS["resnet18_ln"]).stages[0][i].conv1.weight for i in (0, 1)],
    ],
)
def test_initial_weights_of_blocks_differ(blocks: Callable[[], list[torch.Tensor]]) -> None:
    first, second = blocks()
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("depth", "number"), [(1, 1), (4, 1), (8, 2), (12, 3)])
def test_convmixer_map_layer_is_an_early_block(depth: int, number: int) -> None:
    """Blocks are counted from 1."""
    architecture = DEFAULTS["convmixer"].architecture | {"dim": 8, "depth": depth}
    model = build_model(architecture, num_classes=10, image_size=32)
    assert model.cam_layer is model.blocks[number - 1]


def test_map_layers_of_vit_conv_and_compact_ln() -> None:
    vit_conv, compact = (build(DEFAULTS[name]) for name in ("vit_conv", "compact_ln"))
    assert vit_conv.cam_layer is vit_conv.get_submodule("stem.5")
    assert compact.cam_layer is compact.get_submodule("layers.4.mlp.1")


def test_map_layers_of_other_networks_are_late() -> None:
    resnet, vit = (build(DEFAULTS[name]) for name in ("resnet18_ln", "vit"))
    assert resnet.cam_layer is resnet.get_submodule("stages.3")
    assert vit.cam_layer is vit.get_submodule("blocks.5.attention_norm")
    without_token = build_model(
        DEFAULTS["vit"].architecture | {"pool": "mean"}, num_classes=10, image_size=32
    )
    assert without_token.cam_layer is without_token.norm


@pytest.mark.thorough
@EXAMPLES
def test_map_cells_match_image_positions(entry: ModelEntry) -> None:
    """Change one patch: the map must change around the cell that sees it.

    A wrong reshape, such as tokens taken for channels or rows for columns, fails here.
    """
    model = build(entry).eval()
    outputs: list[torch.Tensor] = []
    model.cam_layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    images = torch.randn(16, 3, 32, 32)
    row, column = 9, 22  # not on the diagonal, so that a transposed map fails
    changed = images.clone()
    changed[..., row - 1 : row + 2, column - 1 : column + 2] += 3
    with torch.no_grad():
        model(images)
        model(changed)
    before, after = (model.cam_map(output) for output in outputs)
    assert before.ndim == 4
    height, width = before.shape[2:]
    assert height == width >= 8
    weights = F.adaptive_avg_pool2d((after - before).norm(dim=1), 8).mean(dim=0) ** 4
    cells = torch.arange(8) + 0.5
    for along, pixel in ((weights.sum(dim=1), row), (weights.sum(dim=0), column)):
        centre = (along * cells).sum() / along.sum()
        assert centre.item() == pytest.approx((pixel + 0.5) / 4, abs=0.75)


@pytest.mark.thorough
@EVERY_MODEL
def test_gradient_at_map_layer_is_nonzero(entry: ModelEntry) -> None:
    """It is zero in layers after the last attention of a vision transformer with class token."""
    model = build(entry, SIZE).eval()
    gradients: list[torch.Tensor] = []

    def keep_gradient(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.register_hook(gradients.append)

    model.cam_layer.register_forward_hook(keep_gradient)
    model(torch.randn(2, 3, SIZE, SIZE))[:, 0].sum().backward()
    per_cell = model.cam_map(gradients[0]).abs().sum(dim=1)
    assert (per_cell > 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["convmixer", "compact_ln", "resnet18_ln"])
def test_convolutional_networks_are_channels_last_on_a_cpu(name: str) -> None:
    model = build(DEFAULTS[name])
    assert memory_format(model, torch.device("cpu")) == torch.channels_last
    assert memory_format(model, torch.device("cuda")) == torch.contiguous_format


@pytest.mark.parametrize("name", ["convmixer", "compact_ln"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_long_runs_compile_depthwise_gradients(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_can_compile", lambda: True)
    assert execution.compiling_pays(build(DEFAULTS[name]), precision, 1e18)
    assert not execution.compiling_pays(build(DEFAULTS[name]), precision, 1e9)
