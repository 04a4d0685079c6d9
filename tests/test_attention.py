"""Maps from attention compared with a transformer written with plain matrices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.explanations.attention import (
    attention_rollout,
    attention_weights,
    gradient_attention,
)
from cifarpipe.models.vit import Block, ViT

DIM, HEADS, HEAD_DIM = 12, 3, 5


@pytest.fixture(params=["class", "mean"])
def model(request: pytest.FixtureRequest) -> ViT:
    return make_vit(request.param, depth=3)


def make_vit(pool: str, depth: int) -> ViT:
    torch.manual_seed(0)
    vit = ViT(
        image_size=16, num_classes=4, patch=4, dim=DIM, depth=depth, heads=HEADS,
        head_dim=HEAD_DIM, mlp_dim=20, dropout=0.3, pool=pool,
    )  # fmt: skip
    for parameter in vit.parameters():
        nn.init.normal_(parameter, 0.05, 0.4)
    return vit.eval()


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def plain(model: ViT, image: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Return logits `[classes]` of one image, and each head's attention `[N, N]` by block."""

    def matrix(convolution: nn.Module) -> tuple[Tensor, Tensor]:
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        return convolution.weight[:, :, 0, 0], convolution.bias

    patches = F.conv2d(image[None], model.patch_embedding.weight, model.patch_embedding.bias, 4)
    tokens = patches[0].flatten(1).T
    if model.class_token is not None:
        tokens = torch.cat([model.class_token[0], tokens])
    tokens = tokens + model.positions[0]
    attentions = []
    for block in model.blocks:
        assert isinstance(block, Block)
        norm = block.attention_norm
        x = F.layer_norm(tokens, (DIM,), norm.weight, norm.bias)
        queries, keys, values = F.linear(x, *matrix(block.attention.to_qkv)).chunk(3, dim=1)
        outputs = []
        heads = []
        for head in range(HEADS):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            weights = (queries[:, part] @ keys[:, part].T / HEAD_DIM**0.5).softmax(dim=1)
            weights.retain_grad()
            heads.append(weights)
            outputs.append(weights @ values[:, part])
        attentions.append(heads)
        tokens = tokens + F.linear(torch.cat(outputs, dim=1), *matrix(block.attention.to_out))
        x = F.layer_norm(tokens, (DIM,), block.mlp_norm.weight, block.mlp_norm.bias)
        hidden = F.gelu(F.linear(x, *matrix(block.mlp[0])))
        tokens = tokens + F.linear(hidden, *matrix(block.mlp[3]))
    if model.class_token is not None:
        tokens = tokens[:1]
    x = F.layer_norm(tokens, (DIM,), model.norm.weight, model.norm.bias)
    return F.linear(x, *matrix(model.head)).mean(dim=0), attentions


def patch_flow(model: ViT, flow: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the class token's row, or the mean of all rows."""
    return flow[0, 1:] if model.class_token is not None else flow.mean(axis=0)


def test_plain_transformer_equals_the_model(model: ViT, batch: Tensor) -> None:
    with torch.no_grad():
        logits = model(batch)
    for number, image in enumerate(batch):
        torch.testing.assert_close(plain(model, image)[0], logits[number], rtol=1e-4, atol=1e-4)


def test_rollout_equals_the_paper(model: ViT, batch: Tensor) -> None:
    maps = attention_rollout(model, batch)
    assert maps.shape == (3, 4, 4)
    for number, image in enumerate(batch):
        _, attentions = plain(model, image)
        flow = identity = np.eye(len(attentions[0][0]))
        for heads in attentions:
            mean = np.mean([head.detach().numpy() for head in heads], axis=0)
            flow = (0.5 * mean + 0.5 * identity) @ flow
        np.testing.assert_allclose(maps[number].ravel(), patch_flow(model, flow), rtol=1e-4)


def test_gradient_attention_equals_the_paper(model: ViT, batch: Tensor) -> None:
    classes = torch.tensor([2, 0, 3])
    maps = gradient_attention(model, batch, classes)
    for number, image in enumerate(batch):
        logits, attentions = plain(model, image)
        logits[classes[number]].backward()
        relevance = identity = np.eye(len(attentions[0][0]))
        for heads in attentions:
            terms = [np.maximum(head.grad.numpy() * head.detach().numpy(), 0) for head in heads]
            relevance = relevance + np.mean(terms, axis=0) @ relevance
        expected = patch_flow(model, relevance - identity)
        np.testing.assert_allclose(maps[number].ravel(), expected, rtol=1e-3, atol=1e-6)
    assert not np.allclose(maps, gradient_attention(model, batch, (classes + 1) % 4))


def test_maps_of_one_block_follow_its_attention(batch: Tensor) -> None:
    """The class token's attention to the patches, halved by the identity or weighted."""
    model = make_vit("class", depth=1)
    rollout = attention_rollout(model, batch)
    weighted = gradient_attention(model, batch, torch.tensor([1, 1, 1]))
    for number, image in enumerate(batch):
        logits, (heads,) = plain(model, image)
        logits[1].backward()
        rows = torch.stack([head[0, 1:] for head in heads]).detach().numpy()
        slopes = torch.stack([head.grad[0, 1:] for head in heads]).numpy()
        np.testing.assert_allclose(rollout[number].ravel(), rows.mean(axis=0) / 2, rtol=1e-4)
        expected = np.maximum(rows * slopes, 0).mean(axis=0)
        np.testing.assert_allclose(weighted[number].ravel(), expected, rtol=1e-3, atol=1e-6)


def test_maps_in_double_precision_are_float32(model: ViT, batch: Tensor) -> None:
    classes = torch.tensor([2, 0, 3])
    expected = attention_rollout(model, batch), gradient_attention(model, batch, classes)
    model, batch = model.double(), batch.double()
    found = attention_rollout(model, batch), gradient_attention(model, batch, classes)
    for maps, others in zip(found, expected, strict=True):
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps, others, rtol=1e-3, atol=1e-6)


def test_frozen_weights_give_the_same_maps(model: ViT, batch: Tensor) -> None:
    expected = gradient_attention(model, batch, torch.zeros(3, dtype=torch.int64))
    model.requires_grad_(False)
    with torch.no_grad():
        maps = gradient_attention(model, batch, torch.zeros(3, dtype=torch.int64))
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    assert (maps > 0).any()


# Collecting attention weights.


def hooks(model: ViT) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_weights_of_every_block_are_collected(model: ViT, batch: Tensor) -> None:
    with torch.no_grad(), attention_weights(model.attentions) as weights:
        model(batch)
    assert len(weights) == len(model.blocks)
    for number, image in enumerate(batch):
        for found, heads in zip(weights, plain(model, image)[1], strict=True):
            torch.testing.assert_close(found[number], torch.stack(heads), rtol=1e-4, atol=1e-5)


def test_rows_of_attention_weights_sum_to_one(model: ViT, batch: Tensor) -> None:
    with torch.no_grad(), attention_weights(model.attentions) as weights:
        model(batch)
    for each in weights:
        assert (each >= 0).all()
        torch.testing.assert_close(each.sum(dim=-1), torch.ones(each.shape[:-1]))
        assert (each.sum(dim=-2) - 1).abs().max() > 0.1  # only rows do


def test_collecting_weights_keeps_the_logits(model: ViT, batch: Tensor) -> None:
    with torch.no_grad():
        expected = model(batch)
        with attention_weights(model.attentions):
            torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("explicit", [[False, False, False], [True, False, True]])
def test_model_is_restored_after_collecting(
    model: ViT, batch: Tensor, explicit: list[bool]
) -> None:
    for attention, value in zip(model.attentions, explicit, strict=True):
        attention.explicit = value
    with attention_weights(model.attentions):
        assert all(attention.explicit for attention in model.attentions)
        assert hooks(model) == 3
    assert [attention.explicit for attention in model.attentions] == explicit
    assert hooks(model) == 0
    before = model(batch)
    gradient_attention(model, batch, torch.zeros(3, dtype=torch.int64))
    attention_rollout(model, batch)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(batch), before)


@pytest.mark.parametrize("explicit", [[False, False, False], [True, False, True]])
def test_model_is_restored_after_an_exception(
    model: ViT, batch: Tensor, explicit: list[bool]
) -> None:
    for attention, value in zip(model.attentions, explicit, strict=True):
        attention.explicit = value
    with pytest.raises(ZeroDivisionError), attention_weights(model.attentions):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        gradient_attention(model, batch, torch.tensor([0, 1, 99]))
    assert [attention.explicit for attention in model.attentions] == explicit
    assert hooks(model) == 0
