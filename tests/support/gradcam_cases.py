"""Networks for Grad-CAM: the layer of their maps, images and target classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cifarpipe.config.schema import Params
from cifarpipe.explanations.gradcam import class_activation_maps
from cifarpipe.models.build import build_model
from cifarpipe.results.maps import Maps
from tests.support.architectures import MODEL_OF_ARCHITECTURE

NETWORKS = (*MODEL_OF_ARCHITECTURE.values(), "vit_mean")
K = 5


class ConvNet(nn.Module):
    """A head with a weight for each position, after layers that differ between the modes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, stride=8)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6 * 4 * 4, K)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.conv(images)).relu().flatten(1)))


class TokenNet(nn.Module):
    """Tokens `[B, N, C]`, the class token first, as in most vision transformers."""

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
    """A network, the layer of its maps, images and target classes."""

    model: nn.Module
    layer: nn.Module
    to_map: Callable[[Tensor], Tensor]
    cells: Callable[[Tensor], list[Tensor]]
    """Lists the `[C]` vector of each position of one image's output, row by row."""
    batch: Tensor
    classes: Tensor

    def maps(self) -> Maps:
        return class_activation_maps(self.model, self.layer, self.to_map, self.batch, self.classes)


def make_case(name: str, params: Params) -> Case:
    """Return the case of `conv`, `tokens` or one of `NETWORKS`."""
    torch.manual_seed(0)
    batch, classes = torch.randn(6, 3, 32, 32), torch.tensor([2, 0, 4, 1, 3, 2])
    if name == "conv":
        model = ConvNet()
        where = model.norm, lambda output: output, image_cells
    elif name == "tokens":
        model = TokenNet()
        where = model.norm, lambda output: output[:, 1:].mT.unflatten(2, (4, 4)), token_cells
    else:
        architecture = params.models[name.removesuffix("_mean")].architecture
        if name == "vit_mean":
            architecture["pool"] = "mean"
        model = build_model(architecture, num_classes=K, image_size=32)
        cells = CELLS.get(architecture["arch"], image_cells)
        where = model.cam_layer, model.cam_map, cells
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, not 0 and 1
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Case(model.eval(), *where, batch, classes)


def image_cells(output: Tensor) -> list[Tensor]:
    _, height, width = output.shape
    return [output[:, row, column] for row in range(height) for column in range(width)]


def token_cells(output: Tensor) -> list[Tensor]:
    return [output[number] for number in range(1, len(output))]


def patch_cells(output: Tensor) -> list[Tensor]:
    return list(output[-64:])  # after the class token, if there is one


def channels_last_cells(output: Tensor) -> list[Tensor]:
    return [cell for row in output for cell in row]


# How the output of `cam_layer` is divided into positions, for each architecture in which it is not
# `[B, C, h, w]`.
CELLS = {"vit": patch_cells, "compact_ln": channels_last_cells}
