"""The choice of precision, memory layout and compilation, and errors of the compiler."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from cifarpipe.config.schema import Params, Train
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.training import execution as module
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import (
    COMPILE_SECONDS,
    MARGIN,
    Execution,
    compiling_pays,
    plan_execution,
)

CPU = torch.device("cpu")
GAIN = 1e-12
ENOUGH = MARGIN * COMPILE_SECONDS / GAIN  # multiply-accumulates from which compiling pays


class Measured(nn.Module):
    """A network that gains from compilation and from channels-last layout."""

    compile_gain: ClassVar[dict[str, float]] = {"bf16": GAIN}
    channels_last_on = ("cpu",)


MEASURED = Measured()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a machine of one thread, with a compiler."""
    monkeypatch.setattr(module, "_can_compile", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def options(demo_params: Params, **changes: object) -> Train:
    return demo_params.train.model_copy(update=changes)


@pytest.mark.usefixtures("compiler")
def test_auto_compiles_if_gain_exceeds_cost() -> None:
    assert compiling_pays(MEASURED, "bf16", ENOUGH * 1.01)
    assert not compiling_pays(MEASURED, "bf16", ENOUGH * 0.99)


@pytest.mark.usefixtures("compiler")
def test_gain_is_counted_per_process(demo_params: Params) -> None:
    enough = 1.01 * ENOUGH
    for size, work, compiled in ((1, enough, True), (2, enough, False), (2, 2 * enough, True)):
        train = options(demo_params, precision="bf16")
        plan = plan_execution(train, MEASURED, work, CPU, World(0, size))
        assert plan.compiled == compiled


@pytest.mark.usefixtures("compiler")
def test_auto_skips_what_was_never_measured() -> None:
    assert compiling_pays(MEASURED, "bf16", 1e18)
    assert not compiling_pays(MEASURED, "fp32", 1e18)
    assert not compiling_pays(nn.Module(), "bf16", 1e18)


@pytest.mark.usefixtures("compiler")
def test_more_threads_reduce_the_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not compiling_pays(MEASURED, "bf16", 1.01 * ENOUGH)
    assert compiling_pays(MEASURED, "bf16", 2 * 1.01 * ENOUGH)


@pytest.mark.usefixtures("compiler")
def test_auto_skips_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_can_compile", lambda: False)
    assert not compiling_pays(MEASURED, "bf16", 1e18)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("choice", "compiled"), [("always", True), ("never", False)])
def test_explicit_choice_overrides_auto(demo_params: Params, choice: str, compiled: bool) -> None:
    for macs in (1, 10**18):
        plan = plan_execution(options(demo_params, compile=choice), MEASURED, macs, CPU, World())
        assert plan.compiled == compiled


def test_layout_is_that_of_the_network(demo_params: Params) -> None:
    for network, last in ((MEASURED, True), (nn.Module(), False)):
        plan = plan_execution(options(demo_params), network, 1, CPU, World())
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
    plan = plan_execution(train, MEASURED, 1, torch.device("cuda"), World(0, size))
    assert (plan.compiled, plan.graphed, plan.required) == (fast, graphed, choice == "always")
