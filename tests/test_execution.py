"""How a run is computed: what is chosen where, and that it does not change what is learnt."""

import pytest
import torch
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params, Train
from cifarpipe.networks.devices import CHANNELS_LAST
from cifarpipe.training import execution as module
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import (
    MARGIN,
    Compiling,
    Execution,
    compiling_pays,
    plan_execution,
)

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    """Return what is put into the table for one architecture: it pays from 4e13 MACs on."""
    found = Compiling(seconds=20.0, saved=1e-12)
    monkeypatch.setattr(module, "COMPILING", {("vit", "cpu", "bf16"): found})
    monkeypatch.setattr(module, "_can_compile", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return found


def options(demo_params: Params, **changes: object) -> Train:
    return demo_params.train.model_copy(update=changes)


def test_auto_compiles_where_it_saves_clearly_more_than_it_takes(measured: Compiling) -> None:
    enough = MARGIN * measured.seconds / measured.saved
    assert compiling_pays("vit", CPU, "bf16", enough * 1.01)
    assert not compiling_pays("vit", CPU, "bf16", enough * 0.99)


def test_each_of_several_processes_must_save_more_than_it_takes(
    demo_params: Params, measured: Compiling
) -> None:
    enough = 1.01 * MARGIN * measured.seconds / measured.saved
    for size, work, compiled in ((1, enough, True), (2, enough, False), (2, 2 * enough, True)):
        train = options(demo_params, precision="bf16")
        plan = plan_execution(train, "vit", work, CPU, World(0, size))
        assert plan.compiled == compiled


def test_auto_does_not_compile_what_was_never_measured(measured: Compiling) -> None:
    assert measured.saved > 0
    assert not compiling_pays("convmixer", CPU, "bf16", 1e18)
    assert not compiling_pays("vit", torch.device("cuda"), "bf16", 1e18)
    assert not compiling_pays("vit", CPU, "fp32", 1e18)


def test_more_threads_save_less(measured: Compiling, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = MARGIN * measured.seconds / measured.saved * 1.01
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not compiling_pays("vit", CPU, "bf16", enough)
    assert compiling_pays("vit", CPU, "bf16", 2 * enough)


def test_auto_does_not_compile_where_there_is_no_compiler(
    measured: Compiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured.saved > 0
    monkeypatch.setattr(module, "_can_compile", lambda: False)
    assert not compiling_pays("vit", CPU, "bf16", 1e18)


@pytest.mark.parametrize(("choice", "compiled"), [("always", True), ("never", False)])
def test_the_user_may_decide(
    demo_params: Params, measured: Compiling, choice: str, compiled: bool
) -> None:
    assert measured.saved > 0
    for macs in (1, 10**18):
        plan = plan_execution(options(demo_params, compile=choice), "vit", macs, CPU, World())
        assert plan.compiled == compiled


def test_a_compiler_that_fails_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_batch: torch.Tensor) -> torch.Tensor:
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nmany\nlines")

    monkeypatch.setattr(torch, "compile", lambda _network: refuse)
    step = Execution(CPU, "fp32", compiled=True).stepper(nn.Linear(2, 2))
    with pytest.raises(UserError, match="fails: no compiler"):
        step(torch.zeros(1, 2))


def test_the_layout_is_that_of_the_table(demo_params: Params) -> None:
    for arch in ("vit", "convmixer", "resnet18_ln"):
        plan = plan_execution(options(demo_params), arch, 1, CPU, World())
        last = (arch, "cpu") in CHANNELS_LAST
        placed = plan.place(nn.Conv2d(4, 8, 3))
        weight = placed.weight
        assert isinstance(weight, torch.Tensor)
        assert weight.is_contiguous(memory_format=torch.channels_last) == last


def test_what_is_described_is_the_same_in_all_processes() -> None:
    first, second = (Execution(CPU, "fp32", world=World(rank, 2)) for rank in (0, 1))
    assert first.describe() == second.describe()
    assert first.describe() != Execution(CPU, "fp32").describe()
    assert first.describe()["precision"] == "fp32"
