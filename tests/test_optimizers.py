"""The optimizer of a recipe: its kind and options, and which parameters it gets."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cifarpipe.config import recipes
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import ModelEntry, Params
from cifarpipe.models.build import build_model
from cifarpipe.training import optimizers
from cifarpipe.training.optimizers import (
    CombinedOptimizer,
    hidden_kernels,
    make_optimizer,
    parameter_groups,
    place_learning_rate,
    set_learning_rate,
    state_tensors,
)
from cifarpipe.training.state import TrainingState
from tests.support.architectures import MODEL_OF_ARCHITECTURE

EVERY_MODEL = pytest.mark.parametrize("name", load_params("params.demo.yaml").models)


def build(entry: ModelEntry) -> nn.Module:
    return build_model(entry.architecture, num_classes=10, image_size=32)


def with_adamw(params: Params) -> ModelEntry:
    options = recipes.AdamWOptions(
        name="adamw", betas=(0.7, 0.8), weight_decay=0.25, decay_on="all"
    )
    return params.models["vit"].model_copy(update={"optimizer": options})


def with_sgd(params: Params, nesterov: bool = True) -> ModelEntry:
    options = recipes.SGDOptions(
        name="sgd", momentum=0.7, nesterov=nesterov, weight_decay=0.25, decay_on="weights"
    )
    return params.models["vit"].model_copy(update={"optimizer": options})


def with_muon(params: Params, decay_on: str = "weights") -> ModelEntry:
    options = recipes.MuonOptions(
        name="muon",
        momentum=0.9,
        nesterov=True,
        betas=(0.8, 0.99),
        weight_decay=0.2,
        decay_on=decay_on,
    )
    return params.models["vit"].model_copy(update={"optimizer": options})


@EVERY_MODEL
def test_only_kernels_decay(name: str, demo_params: Params) -> None:
    model = build(demo_params.models[name])
    decayed, spared = parameter_groups(model, 0.05, "weights")
    assert decayed["weight_decay"] == 0.05
    assert spared["weight_decay"] == 0.0
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    spared_names = {names[id(parameter)] for parameter in spared["params"]}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    assert decayed_names | spared_names == set(names.values())
    kernels = {
        key
        for key, value in model.named_parameters()
        if value.ndim >= 2 and key.endswith(".weight")
    }
    assert decayed_names == kernels


def test_all_parameters_decay_on_request() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    (group,) = parameter_groups(model, 0.05, "all")
    assert group["weight_decay"] == 0.05
    assert len(group["params"]) == 4


def test_adamw_has_the_options_of_the_recipe(demo_params: Params) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), with_adamw(demo_params))
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.7, 0.8), 0.25)
    assert len(group["params"]) == 2


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_has_the_options_of_the_recipe(nesterov: bool, demo_params: Params) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), with_sgd(demo_params, nesterov))
    assert type(optimizer) is torch.optim.SGD
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.25, 0.0)
    for group in (decayed, spared):
        assert (group["momentum"], group["nesterov"], group["lr"]) == (0.7, nesterov, 0.0)


OUTER_LAYERS = {
    "vit": {"patch_embedding.weight", "head.weight"},
    "vit_conv": {"stem.0.weight", "head.weight"},
    "convmixer": {"stem.0.weight", "head.weight"},
    "compact_ln": {"layers.0.0.weight", "head.weight"},
    "resnet18_ln": {"stem.0.weight", "head.weight"},
}


@pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())
def test_first_and_last_registered_layers_are_applied_first_and_last(
    name: str, demo_params: Params
) -> None:
    """The optimizer takes them for the first and the last of the network."""
    model = build(demo_params.models[name])
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    applied: list[nn.Module] = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, _inputs, _output: applied.append(layer))
    model(torch.randn(2, 3, 32, 32))
    assert applied[0] is layers[0]
    assert applied[-1] is layers[-1]


@pytest.mark.parametrize("arch", OUTER_LAYERS)
def test_hidden_kernels_exclude_outer_and_depthwise_layers(arch: str, demo_params: Params) -> None:
    entry = demo_params.models[arch]
    model = build(entry)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = hidden_kernels(model)
    hidden = {names[id(kernel)] for kernels in found.values() for kernel in kernels}
    stacked = {names[id(kernel)] for kernel in found.get(3, [])}
    assert stacked == {name for name in names.values() if name.endswith("to_qkv.weight")}
    kernels = {
        key: value
        for key, value in model.named_parameters()
        if key.endswith("weight") and value.ndim > 1
    }
    others = set(kernels) - hidden
    depthwise = {key for key in others if kernels[key].shape[1] == 1}
    assert len(depthwise) == {"convmixer": 3, "compact_ln": 1 + 2}.get(arch, 0)
    assert others - depthwise == OUTER_LAYERS[arch]


def test_grouped_kernels_are_not_hidden() -> None:
    layers = [nn.Conv2d(4, 4, 1, groups=groups) for groups in (1, 1, 2, 4, 1)]
    found = hidden_kernels(nn.Sequential(*layers))
    assert [id(kernel) for kernel in found[1]] == [id(layers[1].weight)]


def test_muon_and_adamw_share_all_parameters(demo_params: Params) -> None:
    entry = with_muon(demo_params)
    model = build(entry)
    optimizer = make_optimizer(model, entry)
    assert isinstance(optimizer, CombinedOptimizer)
    *hidden, decayed, spared = optimizer.param_groups
    assert sorted(group["stacked"] for group in hidden) == [1, 3]
    for group in hidden:
        options = group["momentum"], group["nesterov"], group["weight_decay"], group["lr"]
        assert options == (0.9, True, 0.2, 0.0)
    assert (decayed["betas"], decayed["weight_decay"]) == ((0.8, 0.99), 0.2)
    assert spared["weight_decay"] == 0.0
    held = [id(each) for group in optimizer.param_groups for each in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert len(decayed["params"]) == 2  # the first and the last layer


@pytest.mark.parametrize("keep_norm", [True, None])
def test_muon_keeps_norms_on_request(keep_norm: bool | None, demo_params: Params) -> None:
    entry = with_muon(demo_params)
    options = entry.optimizer.model_copy(update={"keep_norm": keep_norm})
    entry = entry.model_copy(update={"optimizer": options})
    muon, _ = make_optimizer(build(entry), entry).optimizers
    assert muon.keep_norm is bool(keep_norm)


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.float32),
        ("fp32", True, torch.float32),
    ],
)
def test_muon_computes_in_bf16_if_the_run_and_the_device_do(
    precision: str,
    native: bool,
    expected: torch.dtype,
    demo_params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optimizers, "computes_bf16", lambda _device: native)
    entry = with_muon(demo_params)
    muon, _ = TrainingState(build(entry), entry, precision).optimizer.optimizers
    assert muon.dtype == expected


def test_only_optimizers_on_a_gpu_are_made_to_be_captured(demo_params: Params) -> None:
    for name, expected in (("cuda", True), ("cpu", False)):
        device = torch.device(name)
        adamw = optimizers._make(nn.Linear(2, 2), with_adamw(demo_params), device, torch.float32)
        _, beside_muon = optimizers._make(
            build(with_muon(demo_params)), with_muon(demo_params), device, torch.float32
        ).optimizers
        assert adamw.defaults["capturable"] is expected
        assert beside_muon.defaults["capturable"] is expected
        assert adamw.defaults["fused"]
        assert adamw.defaults["lr"] == 0


def test_learning_rate_is_set_in_place_if_it_is_a_tensor(demo_params: Params) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), with_adamw(demo_params))
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25]
    rate = torch.zeros(())
    optimizer.param_groups[0]["lr"] = rate
    set_learning_rate(optimizer, 0.5)
    assert rate == 0.5
    assert optimizer.param_groups[0]["lr"] is rate


def test_learning_rate_becomes_a_tensor_on_a_gpu_only(demo_params: Params) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), with_adamw(demo_params))
    keys = set(optimizer.param_groups[0])
    place_learning_rate(optimizer, torch.device("cpu"))
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert not isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    with FakeTensorMode():
        place_learning_rate(optimizer, torch.device("cuda"))
    rate = optimizer.param_groups[0]["lr"]
    assert (rate.device.type, rate.dtype, rate.shape) == ("cuda", torch.float32, ())
    assert set(optimizer.param_groups[0]) == keys
    assert len(optimizer.param_groups[0]) == len(
        torch.optim.AdamW(nn.Linear(2, 2).parameters()).param_groups[0]
    )


def test_state_has_the_tensors_of_all_optimizers(demo_params: Params) -> None:
    entry = with_muon(demo_params)
    model = build(entry)
    optimizer = make_optimizer(model, entry)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    found = {id(each) for each in state_tensors(optimizer)}
    muon, adamw = optimizer.optimizers
    averages = [state["momentum_buffer"] for state in muon.state.values()]
    moments = [state[key] for state in adamw.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert averages
    assert moments
    assert {id(each) for each in (*averages, *moments)} <= found


def test_combined_optimizer_is_restored_exactly(demo_params: Params) -> None:
    entry = with_muon(demo_params, decay_on="all")
    torch.manual_seed(0)
    model = build(entry)
    images = torch.randn(4, 3, 32, 32)

    def train(network: nn.Module, optimizer: CombinedOptimizer, steps: int) -> None:
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()

    first = make_optimizer(model, entry)
    train(model, first, 2)
    copied = copy.deepcopy(model)
    second = make_optimizer(copied, entry)
    with pytest.raises(ValueError, match="shorter"):
        second.load_state_dict({"optimizers": first.state_dict()["optimizers"][:1]})
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(model, first, 2)
    train(copied, second, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, copied.state_dict()[name]), name
