"""The layer table: parameters and multiply-accumulates of each layer."""

import pytest
import torch
from torch import nn

from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from cifarpipe.training.cost import COLUMNS, layer_table


class TwoLayers(nn.Module):
    """A scale of its own, a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5 * 4 * 4, 7, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(images * self.scale)).relu().flatten(1))


def test_layer_table_by_hand() -> None:
    table = layer_table(TwoLayers(), 8)
    assert list(table) == COLUMNS
    assert table.to_numpy().tolist() == [
        ["scale", "Parameter", "", 3, 0],
        ["conv", "Conv2d", "5 x 4 x 4", 5 * 3 * 9 + 5, 4 * 4 * 5 * 3 * 9],
        ["norm", "BatchNorm2d", "5 x 4 x 4", 10, 0],
        ["head", "Linear", "7", 80 * 7, 80 * 7],
    ]


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_table_sums_to_all_parameters(name: str, demo_params: Params) -> None:
    architecture = demo_params.models[name].architecture
    model = build_model(architecture, num_classes=10, image_size=32)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert layer_table(model, 32).parameters.sum() == expected


def test_model_is_unchanged_by_layer_table() -> None:
    model = TwoLayers().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layer_table(model, 8)
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_model_is_restored_after_an_exception() -> None:
    model = TwoLayers().train()
    with pytest.raises(RuntimeError):
        layer_table(model, 9)  # the head does not fit
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
