"""The choice of precision, memory layout and compilation, and errors of the compiler."""

import pytest
import torch
from torch import nn

from cifarpipe.config.schema import Params, Train
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.networks.devices import CHANNELS_LAST
from cifarpipe.training import execution as module
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import (
    MARGIN,
    CompileGain,
    Execution,
    compiling_pays,
    plan_execution,
)

CPU = torch.device("cpu")


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> CompileGain:
    """Return the only entry of a table of gains: compiling pays from 4e13 MACs on."""
    gain = CompileGain(seconds=20.0, saved=1e-12)
    monkeypatch.setattr(module, "COMPILE_GAINS", {("vit", "bf16"): gain})
    monkeypatch.setattr(module, "_can_compile", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return gain


def options(demo_params: Params, **changes: object) -> Train:
    return demo_params.train.model_copy(update=changes)


def test_auto_compiles_if_gain_exceeds_cost(gain: CompileGain) -> None:
    enough = MARGIN * gain.seconds / gain.saved
    assert compiling_pays("vit", "bf16", enough * 1.01)
    assert not compiling_pays("vit", "bf16", enough * 0.99)


def test_gain_is_counted_per_process(demo_params: Params, gain: CompileGain) -> None:
    enough = 1.01 * MARGIN * gain.seconds / gain.saved
    for size, work, compiled in ((1, enough, True), (2, enough, False), (2, 2 * enough, True)):
        train = options(demo_params, precision="bf16")
        plan = plan_execution(train, "vit", work, CPU, World(0, size))
        assert plan.compiled == compiled


@pytest.mark.usefixtures("gain")
def test_auto_skips_what_was_never_measured() -> None:
    assert compiling_pays("vit", "bf16", 1e18)
    assert not compiling_pays("convmixer", "bf16", 1e18)
    assert not compiling_pays("vit", "fp32", 1e18)


def test_more_threads_reduce_the_gain(gain: CompileGain, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = MARGIN * gain.seconds / gain.saved * 1.01
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not compiling_pays("vit", "bf16", enough)
    assert compiling_pays("vit", "bf16", 2 * enough)


@pytest.mark.usefixtures("gain")
def test_auto_skips_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_can_compile", lambda: False)
    assert not compiling_pays("vit", "bf16", 1e18)


@pytest.mark.usefixtures("gain")
@pytest.mark.parametrize(("choice", "compiled"), [("always", True), ("never", False)])
def test_explicit_choice_overrides_auto(demo_params: Params, choice: str, compiled: bool) -> None:
    for macs in (1, 10**18):
        plan = plan_execution(options(demo_params, compile=choice), "vit", macs, CPU, World())
        assert plan.compiled == compiled


def test_layout_follows_the_table(demo_params: Params) -> None:
    for arch in ("vit", "convmixer", "resnet18_ln"):
        plan = plan_execution(options(demo_params), arch, 1, CPU, World())
        last = (arch, "cpu") in CHANNELS_LAST
        placed = plan.place(nn.Conv2d(4, 8, 3))
        weight = placed.weight
        assert isinstance(weight, torch.Tensor)
        assert weight.is_contiguous(memory_format=torch.channels_last) == last


def test_description_is_equal_in_all_processes() -> None:
    first, second = (Execution(CPU, "fp32", world=World(rank, 2)) for rank in (0, 1))
    assert first.describe() == second.describe()
    assert first.describe() != Execution(CPU, "fp32").describe()
    assert first.describe()["precision"] == "fp32"


def test_placed_network_has_adapted_layers() -> None:
    depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1))
    layer = Execution(CPU, "bf16", compiled=True).place(depthwise)[0]
    assert isinstance(layer, DepthwiseConv2d)
    assert layer.compiled


def test_only_depthwise_layers_are_compiled_in_their_network() -> None:
    execution = Execution(CPU, "fp32", compiled=True)
    depthwise = execution.place(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1)))
    assert not execution.compiles_network(depthwise)
    assert execution.compiles_network(execution.place(nn.Sequential(nn.Conv2d(4, 4, 3))))
    assert not Execution(CPU, "fp32").compiles_network(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("choice", "size", "fast", "graphed"),
    [("auto", 1, True, True), ("auto", 2, True, False), ("never", 1, False, False),
     ("always", 1, True, True)],
)  # fmt: skip
def test_gpu_compiles_and_replays_graphs(
    demo_params: Params, choice: str, size: int, fast: bool, graphed: bool
) -> None:
    train = options(demo_params, compile=choice, precision="fp32")
    plan = plan_execution(train, "vit", 1, torch.device("cuda"), World(0, size))
    assert (plan.compiled, plan.graphed, plan.required) == (fast, graphed, choice == "always")
