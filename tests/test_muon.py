"""Muon against PyTorch's own, for matrices; for kernels, against the same numbers as matrices."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Muon as MuonOptions
from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from cifarpipe.training.muon import Muon, Together, orthogonalize
from cifarpipe.training.optim import inner_kernels, make_optimizer

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 5), (6, 4)]


def gradients(step: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def walk(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int = 6) -> None:
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (step + 1)
        for weight, gradient in zip(weights, gradients(step, SHAPES), strict=True):
            weight.grad = gradient.view(weight.shape)
        optimizer.step()


def start() -> list[nn.Parameter]:
    return [nn.Parameter(matrix) for matrix in gradients(99, SHAPES)]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_of_matrices_it_is_pytorchs(nesterov: bool, weight_decay: float) -> None:
    ours, theirs = start(), start()
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay}
    walk(Muon(ours, **options), ours)
    walk(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options), theirs)
    for one, other, first in zip(ours, theirs, start(), strict=True):
        assert (one - first).abs().mean() > 0.03
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # bfloat16 of a step, added up


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_the_matrix_from_all_inputs_to_the_outputs(
    memory_format: torch.memory_format,
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, gradient = (torch.randn(6, 3, 2, 2, generator=generator) for _ in range(2))
    matrix = nn.Parameter(first.flatten(1).clone())
    kernel = nn.Parameter(first.clone(memory_format=memory_format))
    for weight in (matrix, kernel):
        optimizer = Muon([weight], lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1)
        weight.grad = gradient.view(weight.shape).clone()
        optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_each_of_stacked_maps_is_turned_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(4, 5, generator=generator) for _ in range(3)]
    scales = [1.0, 10.0, 0.1]  # one below the other, the greatest would be turned and no other
    options = {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1}
    apart = [nn.Parameter(one.clone()) for one in maps]
    below = nn.Parameter(torch.cat(maps)[:, :, None, None])
    for weight, scale, one in zip(apart, scales, maps, strict=True):
        weight.grad = scale * one
    below.grad = torch.cat([weight.grad for weight in apart])[:, :, None, None]
    Muon(apart, **options).step()
    Muon([{"params": [below], "stacked": 3}], **options).step()
    torch.testing.assert_close(below[:, :, 0, 0], torch.cat([*apart]))


@pytest.mark.parametrize(("rows", "columns"), [(8, 30), (30, 8), (16, 16)])
def test_singular_values_become_about_one_and_their_directions_stay(
    rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    k = min(rows, columns)
    left = torch.linalg.qr(torch.randn(5, rows, k, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(5, columns, k, generator=generator)).Q
    values = torch.logspace(0, -2, k) * 7
    found = orthogonalize((left * values) @ right.mT)
    assert found.dtype == torch.bfloat16
    inside = left.mT @ found.float() @ right  # diagonal, if directions stay
    sizes = inside.diagonal(dim1=1, dim2=2)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    assert (inside - torch.diag_embed(sizes)).abs().max() < 0.05


def test_no_gradient_is_no_step() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    optimizer = Muon(weights, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1)
    weights[0].grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(weights[0], torch.full((2, 2), 0.99))  # decay alone
    torch.testing.assert_close(weights[1], torch.ones(2, 2))


OUTER = {
    "vit": {"patch_embedding.weight", "head.weight"},
    "vit_t2t": {"patch_embedding.weight", "head.weight"},
    "convmixer": {"stem.0.weight", "head.weight"},
    "resnet18_ln": {"stem.0.weight", "head.weight"},
    "resnet18_ln_plateau": {"stem.0.weight", "head.weight"},
}


@pytest.mark.parametrize("name", load_params("params.demo.yaml").models)
def test_first_and_last_layer_and_what_mixes_no_channels_are_left_to_adamw(
    name: str, demo_params: Params
) -> None:
    model = build_model(demo_params.models[name], num_classes=10, image_size=32)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = inner_kernels(model)
    inner = {names[id(kernel)] for kernels in found.values() for kernel in kernels}
    stacked = {names[id(kernel)] for kernel in found.get(3, [])}
    assert stacked == {name for name in names.values() if name.endswith("to_qkv.weight")}
    kernels = {key: p for key, p in model.named_parameters() if key.endswith("weight")}
    outer = {key for key, p in kernels.items() if p.ndim > 1} - inner
    depthwise = {key for key in outer if name == "convmixer" and kernels[key].shape[1] == 1}
    assert len(depthwise) == (demo_params.models[name].depth if name == "convmixer" else 0)
    assert outer - depthwise == OUTER[name]


def recipe(params: Params, decay_on: str = "weights") -> MuonOptions:
    options = MuonOptions(
        name="muon", momentum=0.9, nesterov=True, betas=(0.8, 0.99), weight_decay=0.2,
        decay_on=decay_on,
    )  # fmt: skip
    return params.models["vit"].model_copy(update={"optimizer": options})


def test_every_parameter_has_one_optimizer(demo_params: Params) -> None:
    entry = recipe(demo_params)
    model = build_model(entry, num_classes=10, image_size=32)
    optimizer = make_optimizer(model, entry)
    assert isinstance(optimizer, Together)
    *matrices, decayed, spared = optimizer.param_groups
    assert len(matrices) == 2  # of one map each, and of three
    for group in matrices:
        options = group["momentum"], group["nesterov"], group["weight_decay"]
        assert options == (0.9, True, 0.2)
    assert (decayed["betas"], decayed["weight_decay"]) == ((0.8, 0.99), 0.2)
    assert spared["weight_decay"] == 0.0
    held = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert len(decayed["params"]) == 2  # first and last layer


def test_it_goes_on_from_its_state_to_the_bit(demo_params: Params) -> None:
    entry = recipe(demo_params, decay_on="all")
    torch.manual_seed(0)
    model = build_model(entry, num_classes=10, image_size=32)
    images = torch.randn(4, 3, 32, 32)

    def go(network: nn.Module, optimizer: Together, steps: int) -> None:
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()

    optimizer = make_optimizer(model, entry)
    go(model, optimizer, 2)
    other = copy.deepcopy(model)
    again = make_optimizer(other, entry)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    go(model, optimizer, 2)
    go(other, again, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
