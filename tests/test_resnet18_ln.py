"""ResNet-18 with layer norm compared with torchvision's network, in double precision."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cifarpipe.models.resnet18_ln import ResNet18LN
from cifarpipe.training.cost import layer_table
from tests.support.network_weights import randomise_weights, relative_difference

Twin = torchvision.models.ResNet


def make() -> tuple[ResNet18LN, Twin, Tensor]:
    """Return a network in which every part matters, torchvision's twin of it, and images."""
    model = ResNet18LN(num_classes=10).double()
    randomise_weights(model)
    twin = torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock,
        [2, 2, 2, 2],
        num_classes=10,
        norm_layer=lambda channels: nn.GroupNorm(1, channels),
    ).double()
    twin.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False, dtype=torch.float64)
    twin.maxpool = nn.Identity()
    last = twin.layer4[0]  # torchvision's last stage halves the resolution, ours keeps it
    last.conv1.stride = last.downsample[0].stride = (1, 1)
    weights, names = model.state_dict(), list(twin.state_dict())
    assert [value.shape for value in weights.values()] == [
        value.shape for value in twin.state_dict().values()
    ]
    twin.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return model.eval(), twin.eval(), images.double()


class Zero(nn.Module):
    """A shortcut that adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


def remove(path: str) -> Callable[[Twin], None]:
    """Return a change that replaces a layer by the identity."""
    parent, _, name = path.rpartition(".")
    return lambda twin: setattr(twin.get_submodule(parent), name, nn.Identity())


def without_shortcut(path: str) -> Callable[[Twin], None]:
    return lambda twin: setattr(twin.get_submodule(path), "downsample", Zero())


def norm_per_channel(twin: Twin) -> None:
    for module in twin.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels


def stride_in_last_stage(twin: Twin) -> None:
    twin.layer4[0].conv1.stride = twin.layer4[0].downsample[0].stride = (2, 2)


# Changes of the twin; each must change the logits, or the comparison could not see it.
CHANGES = {
    "no stem norm": remove("bn1"),
    "no stem ReLU": remove("relu"),
    "no first norm of a block": remove("layer1.0.bn1"),
    "no second norm of a block": remove("layer3.1.bn2"),
    "no norm of a shortcut": remove("layer2.0.downsample.1"),
    "no ReLU in a block": remove("layer2.1.relu"),
    "no identity shortcut": without_shortcut("layer1.1"),
    "no projection shortcut": without_shortcut("layer4.0"),
    "norm per channel": norm_per_channel,
    "stride in the last stage": stride_in_last_stage,
}


@torch.no_grad()
def test_resnet_equals_torchvision() -> None:
    model, twin, images = make()
    torch.testing.assert_close(model(images), twin(images))


@pytest.mark.thorough
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_every_part_of_resnet_matters(change: str) -> None:
    _, twin, images = make()
    expected = twin(images)
    CHANGES[change](twin)
    assert relative_difference(twin(images), expected) > 0.01


def test_width_and_strides_set_the_shape() -> None:
    model = ResNet18LN(num_classes=10, width=16, strides=(1, 2, 1, 2))
    images = torch.randn(2, 3, 32, 32)
    assert model.forward_features(images).shape == (2, 128, 8, 8)
    assert model(images).shape == (2, 10)


def test_zero_residual_block_starts_as_its_shortcut() -> None:
    model = ResNet18LN(num_classes=10, width=16, zero_init_residual=True)
    block = model.stages[0][1]
    x = torch.rand(2, 16, 8, 8)  # positive, since ReLU follows the sum
    torch.testing.assert_close(block(x), x)
    assert not torch.equal(ResNet18LN(num_classes=10, width=16).stages[0][1](x), x)


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
    assert layer_table(ResNet18LN(num_classes=10), 32).macs.sum() == by_hand
