"""The memory that a training step needs, and that which is free."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.training import memory
from cifarpipe.training.execution import Execution
from cifarpipe.training.memory import GIB, LiveTensors, check_memory, free_bytes, step_bytes
from cifarpipe.training.optimizers import make_optimizer, state_tensors, state_values
from tests.support.histories import accumulator

CPU = torch.device("cpu")
FP32 = Execution(CPU, "fp32")
SIZE, HIDDEN, CLASSES = 8, 50, 10


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIZE**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
    )


def recipe(**changes: Any) -> Recipe:
    """Return a recipe with plain SGD; these keys are changed."""
    keys = {
        "epochs": 1, "batch_size": 8, "lr_scale": 1.0, "schedule": "cosine", "warmup": 0.0,
        "optimizer": {
            "name": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0,
            "decay_on": "all",
        },
    }  # fmt: skip
    return Recipe.model_validate(keys | changes)


def test_bytes_of_a_small_network_by_hand() -> None:
    """At the end: an image, its gradient, that of the hidden layer; the loss and its gradient."""
    each = 2 * 3 * SIZE**2 + HIDDEN
    assert step_bytes(small_network(), SIZE, 7, FP32) == 4 * (7 * each + 2)


def test_live_tensors_are_counted_by_hand() -> None:
    x = torch.ones(1000, requires_grad=True)
    with LiveTensors([x]) as live:
        y = (x.view(10, 100) * 2).relu()  # the product is freed, and views need no memory
        assert (live.current, live.peak) == (4000, 8000)
        z = y.exp()
        assert live.current == 8000
        del y, z
    assert live.current == 0


def test_estimate_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    step_bytes(model, SIZE, 2, FP32)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_estimate_frees_all_that_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its memory stays taken."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1), nn.Conv2d(4, 4, 3, bias=False))
    inside = nn.Sequential.forward

    def forward(model: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
        output = inside(model, images)
        for parameter in model.parameters():
            accumulator(parameter).metadata["of the estimate"] = True
        return output

    monkeypatch.setattr(nn.Sequential, "forward", forward)
    step_bytes(model, SIZE, 2, FP32)
    monkeypatch.undo()
    for parameter in model.parameters():
        assert "of the estimate" not in accumulator(parameter).metadata


def test_step_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: GIB // 2)
    check_memory("net", small_network(), SIZE, 10_000, FP32, recipe(batch_size=10_000))
    with pytest.raises(UserError) as refused:
        check_memory("net", small_network(), SIZE, 1_000_000, FP32, recipe(batch_size=1_000_000))
    first, advice = str(refused.value).splitlines()
    assert first == "net: a training step needs at least 1.6 GiB of memory, and 0.5 GiB are free."
    assert "Reduce `batch_size` (now 1000000) of its entry" in advice
    with pytest.raises(UserError, match=r"`batch_size` \(now 2000000\)"):  # of two processes
        check_memory("net", small_network(), SIZE, 1_000_000, FP32, recipe(batch_size=2_000_000))


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [
        ({"name": "sgd", "momentum": 0.0, "nesterov": False}, 0),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, 1),
        ({"name": "muon", "momentum": 0.9, "nesterov": True, "betas": [0.9, 0.95]}, 1),
        ({"name": "adamw", "betas": [0.9, 0.95]}, 2),
    ],
    ids=lambda case: case["name"] if isinstance(case, dict) else str(case),
)
def test_weights_that_leave_no_room_for_their_update_are_refused(
    optimizer: dict[str, object], values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 3 × 8² × 4,000 weights, 4,000 biases; their gradients, the optimizer's state."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4000))
    needed = (values + 1) * 4 * 4000 * (3 * SIZE**2 + 1)
    given = recipe(optimizer=optimizer | {"weight_decay": 0.0, "decay_on": "all"})
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    check_memory("net", model, SIZE, 1, FP32, given)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(UserError, match="or its number of weights"):
        check_memory("net", model, SIZE, 1, FP32, given)


def test_state_values_are_what_the_optimizers_keep() -> None:
    for name, options in (("sgd", {"momentum": 0.9, "nesterov": True}), ("adamw", {})):
        given = recipe(
            optimizer={"name": name, "weight_decay": 0.0, "decay_on": "all"}
            | (options or {"betas": [0.9, 0.95]})
        )
        model = nn.Linear(50, 50)
        optimizer = make_optimizer(model, given)
        model(torch.randn(2, 50)).sum().backward()
        optimizer.step()
        kept = sum(each.numel() for each in state_tensors(optimizer) if each.ndim)
        assert kept == state_values(given.optimizer) * sum(p.numel() for p in model.parameters())


def test_unknown_free_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    check_memory("net", small_network(), SIZE, 10**12, FP32, recipe())  # raises nothing


@pytest.mark.parametrize(
    ("limit", "free"),
    [("max", 8_000_000 * 1024), (str(3 * 10**9), 2 * 10**9 + 10**8), (None, 8_000_000 * 1024)],
)
def test_free_memory_is_the_smaller_of_system_and_container(
    limit: str | None, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{10**9}\n")
        (tmp_path / "memory.stat").write_text(f"anon 900000000\ninactive_file {10**8}\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_bytes() == free


def test_free_memory_is_unknown_without_linux_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_bytes() is None
