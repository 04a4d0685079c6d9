"""LibraGrad: balanced gradients are complete, and leave the network as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifarpipe.explanations.libragrad import (
    balanced_gradients,
    has_attention_blocks,
    libragrad,
)
from cifarpipe.models.convmixer import ConvMixer
from cifarpipe.models.vit import ViT
from cifarpipe.models.vit_conv import ViTConv

Network = ViT | ViTConv


def make_network(kind: str) -> Network:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "num_classes": 4, "dim": 12, "heads": 3, "head_dim": 5}
    if kind == "conv":
        network: Network = ViTConv(**sizes, depth=3, mlp_dim=20)
    else:
        network = ViT(**sizes, depth=3, mlp_dim=20, patch=4, dropout=0.3, pool=kind)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.05, 0.4)
    return network.eval()


@pytest.fixture(params=["class", "mean", "conv"])
def network(request: pytest.FixtureRequest) -> Network:
    return make_network(request.param)


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def biases_after(network: Network, block: int) -> list[nn.Parameter]:
    """Return what is added in this block and in all that follows."""
    parts = [*network.blocks[block:], network.norm, network.head]
    named = [each for part in parts for each in part.named_parameters()]
    return [parameter for name, parameter in named if name.endswith("bias")]


def shares(network: Network, image: Tensor, label: int, block: int) -> tuple[float, Tensor, float]:
    """Return the logit, each token's share of it before a block `[N]`, and the biases' share."""
    tokens: list[Tensor] = []
    hook = network.blocks[block].register_forward_pre_hook(lambda _, inputs: tokens.append(*inputs))
    biases = biases_after(network, block)
    with balanced_gradients(network):
        logit = network(image[None])[0, label]
        gradients = torch.autograd.grad(logit, [*tokens, *biases], allow_unused=True)
    hook.remove()
    of_tokens = (tokens[0] * gradients[0]).detach()[0].sum(dim=1)
    pairs = zip(biases, gradients[1:], strict=True)
    of_biases = sum(float((bias * g).sum().detach()) for bias, g in pairs if g is not None)
    return float(logit.detach()), of_tokens, of_biases


@pytest.mark.parametrize("block", [0, 1, 2])
def test_shares_add_up_to_the_logit(network: Network, batch: Tensor, block: int) -> None:
    for image in batch:
        logit, of_tokens, of_biases = shares(network, image, 2, block)
        assert float(of_tokens.sum()) + of_biases == pytest.approx(logit, rel=1e-4, abs=1e-4)


def test_plain_gradients_do_not_add_up(network: Network, batch: Tensor) -> None:
    """So the test above can fail."""
    tokens: list[Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: tokens.append(*inputs))
    biases = biases_after(network, 0)
    logit = network(batch[:1])[0, 2]
    gradients = torch.autograd.grad(logit, [*tokens, *biases], allow_unused=True)
    pairs = zip([*tokens, *biases], gradients, strict=True)
    total = sum(float((x * g).sum().detach()) for x, g in pairs if g is not None)
    assert abs(total - float(logit.detach())) > 0.01


def test_map_is_the_sum_over_blocks(network: Network, batch: Tensor) -> None:
    classes = torch.tensor([2, 0, 3])
    maps = libragrad(network, batch, classes)
    assert maps.shape == (3, 4, 4)
    for image, label, found in zip(batch, classes.tolist(), maps, strict=True):
        expected = sum(shares(network, image, label, block)[1][-16:] for block in range(3))
        np.testing.assert_allclose(found.ravel(), expected.numpy(), rtol=1e-3, atol=1e-5)
    assert (maps < 0).any()
    assert not np.allclose(maps, libragrad(network, batch, (classes + 1) % 4))


def test_outputs_and_hooks_are_unchanged(network: Network, batch: Tensor) -> None:
    explicit = [attention.explicit for attention in network.attentions]
    with torch.no_grad():
        expected = network(batch)
        with balanced_gradients(network):
            torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in network.modules())
    assert [attention.explicit for attention in network.attentions] == explicit
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    classes = torch.tensor([2, 0, 3])
    with torch.inference_mode():  # frozen weights and a caller's mode make no difference
        maps = libragrad(network, batch, classes)
    assert np.isfinite(maps).all()
    assert not any(block._forward_pre_hooks for block in network.blocks)


@pytest.mark.parametrize("bias", [True, False])
def test_other_forms_of_layers_keep_their_output(bias: bool, batch: Tensor) -> None:
    """The approximate GELU, also at 0, and norms without bias or without weight."""
    network = make_network("mean")
    for block in network.blocks:
        block.mlp[1] = nn.GELU(approximate="tanh")
        block.attention_norm = nn.LayerNorm(12, eps=0.1, bias=bias)
        block.mlp_norm = nn.LayerNorm(12, elementwise_affine=False)
        nn.init.zeros_(block.mlp[0].weight[:4])
        nn.init.zeros_(block.mlp[0].bias[:4])
    with torch.no_grad():
        expected = network(batch)
        with balanced_gradients(network):
            torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(libragrad(network, batch, torch.tensor([2, 0, 3]))).all()


def test_gradient_of_gelu_at_zero_is_its_limit() -> None:
    network = make_network("mean")
    x = torch.zeros(2, requires_grad=True)
    with balanced_gradients(network):
        network.blocks[0].mlp[1](x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 0.5]


def test_only_networks_of_attention_blocks_are_explained() -> None:
    assert all(has_attention_blocks(make_network(kind)) for kind in ("class", "mean", "conv"))
    assert not has_attention_blocks(
        ConvMixer(image_size=16, num_classes=4, dim=8, depth=1, kernel=3, patch=2)
    )
    for part in ("blocks", "grid", "attentions", "pooled_tokens"):
        others = {"blocks", "grid", "attentions", "pooled_tokens"} - {part}
        network = nn.Module()
        for name in others:
            setattr(network, name, 1)
        assert not has_attention_blocks(network)
        setattr(network, part, 1)
        assert has_attention_blocks(network)
