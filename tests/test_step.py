"""A training step: fast ways that differ from the eager one are not used; errors are explained."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.config.schema import Params
from cifarpipe.training import step as module
from cifarpipe.training.batches import Batch
from cifarpipe.training.distributed import Share
from cifarpipe.training.execution import Execution
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import (
    CheckedStep,
    EagerStep,
    Step,
    explained_errors,
    make_step,
    unchanged,
)
from tests.support.histories import accumulator
from tests.support.training_data import SIDE, SmallNet

CPU = torch.device("cpu")
SIZE = 8


@pytest.fixture
def recipe(demo_params: Params) -> Recipe:
    return demo_params.models["convmixer"].model_copy(update={"ema": 0.5})


@pytest.fixture
def state(recipe: Recipe) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(SmallNet(dropout=0.2), recipe)


def batch(size: int = SIZE) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, 3, SIDE, SIDE, generator=generator)
    return Batch(inputs, torch.arange(size) % 3, Share(0, size, 1 / size))


def eager_step(state: TrainingState, recipe: Recipe) -> EagerStep:
    return EagerStep(state, recipe, Execution(CPU, "fp32"), state.model)


class Counted:
    """A step that counts its calls and may do something else besides."""

    def __init__(self, step: Step, factor: float = 1.0) -> None:
        self.step, self.factor, self.calls = step, factor, 0

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return self.step(batch, lr * self.factor)


def checked(
    state: TrainingState, recipe: Recipe, fast: Step, *, required: bool = False
) -> tuple[CheckedStep, Counted]:
    eager = Counted(eager_step(state, recipe))
    execution = Execution(CPU, "fp32", required=required)
    step = CheckedStep("vit", state, eager, lambda *_: fast, size=SIZE, execution=execution)
    return step, eager


def weights(state: TrainingState) -> Tensor:
    return nn.utils.parameters_to_vector(state.model.parameters()).detach().clone()


def test_agreeing_step_is_used_for_whole_batches(state: TrainingState, recipe: Recipe) -> None:
    fast = Counted(eager_step(state, recipe))
    step, eager = checked(state, recipe, fast)
    step(batch(), 0.01)
    assert (eager.calls, fast.calls) == (1, 0)  # the first step of a run is eager
    step(batch(), 0.01)
    assert (eager.calls, fast.calls) == (1 + 3, 3 + 1)  # three of each to compare
    step(batch(), 0.01)
    step(batch(SIZE - 1), 0.01)
    assert (eager.calls, fast.calls) == (1 + 3 + 1, 3 + 1 + 1)
    assert not state.fell_back


def test_check_changes_no_result(state: TrainingState, recipe: Recipe) -> None:
    """Neither weights nor momentum, averages, or the random numbers of dropout."""
    step, _ = checked(state, recipe, eager_step(state, recipe))
    torch.manual_seed(5)
    losses = [float(step(batch(), 0.01)[0]) for _ in range(4)]
    after = weights(state)
    torch.manual_seed(0)
    other = TrainingState(SmallNet(dropout=0.2), recipe)
    plain = eager_step(other, recipe)
    torch.manual_seed(5)
    assert losses == [float(plain(batch(), 0.01)[0]) for _ in range(4)]
    assert torch.equal(after, weights(other))
    for ours, theirs in zip(state.tensors(), other.tensors(), strict=True):
        assert torch.equal(ours, theirs)


def test_no_history_is_kept_while_the_fast_step_is_made(
    state: TrainingState, recipe: Recipe
) -> None:
    """A CUDA graph can't be captured while autograd nodes of another stream are alive."""
    parameter = next(state.model.parameters())
    eager = eager_step(state, recipe)
    kept = []

    def make_fast(*_: object) -> Step:
        accumulator(parameter).metadata["seen"] = True
        kept.append("seen" in accumulator(parameter).metadata)
        return eager

    execution = Execution(CPU, "fp32")
    step = CheckedStep("vit", state, eager, make_fast, size=SIZE, execution=execution)
    for _ in range(2):
        step(batch(), 0.01)
    assert kept == [False]


def without_update(state: TrainingState) -> Step:
    """A step whose graph has lost its update: the loss is right, the weights stay."""

    def step(batch: Batch, _lr: float) -> tuple[Tensor, Tensor]:
        logits = state.model(batch.inputs).detach()
        return F.cross_entropy(logits, batch.targets, reduction="sum"), torch.zeros(())

    return step


def failing(_batch: Batch, _lr: float) -> tuple[Tensor, Tensor]:
    raise RuntimeError("no driver.\nmany\nlines")


def spoiled(state: TrainingState, recipe: Recipe) -> Step:
    """A step that fails halfway, with the weights already changed."""
    eager = eager_step(state, recipe)

    def step(batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        eager(batch, 100 * lr)
        return failing(batch, lr)

    return step


@pytest.mark.parametrize("fault", ["without update", "twice the rate", "failing", "spoiled"])
def test_faulty_step_is_replaced_by_eager_one(
    state: TrainingState, recipe: Recipe, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = {
        "without update": without_update(state),
        "twice the rate": Counted(eager_step(state, recipe), factor=2.0),
        "failing": failing,
        "spoiled": spoiled(state, recipe),
    }[fault]
    step, eager = checked(state, recipe, fast)
    for _ in range(3):
        step(batch(), 0.01)
    said = capsys.readouterr().out
    assert eager.calls == 3 + 3
    assert state.fell_back
    assert said.startswith("vit: training without torch.compile and CUDA graphs: ")
    assert said.count("\n") == 1
    assert ("no driver" in said) == (fault in ("failing", "spoiled"))
    torch.manual_seed(0)
    other = TrainingState(SmallNet(dropout=0.2), recipe)
    assert weights(state).shape == weights(other).shape
    assert float((weights(state) - weights(other)).abs().max()) < 0.1  # spoiled: about 1


def test_required_step_that_fails_is_an_error(state: TrainingState, recipe: Recipe) -> None:
    step, _ = checked(state, recipe, failing, required=True)
    step(batch(), 0.01)
    with pytest.raises(UserError, match=r"vit: the compiled step can't be used: no driver\.\nSet"):
        step(batch(), 0.01)


def test_planned_step_is_eager_without_compiler_or_graph(
    state: TrainingState, recipe: Recipe
) -> None:
    step = make_step("vit", state, state.model, recipe, Execution(CPU, "fp32"), size=SIZE)
    assert type(step) is EagerStep
    execution = Execution(CPU, "fp32", compiled=True)
    step = make_step("vit", state, state.model, recipe, execution, size=SIZE)
    assert isinstance(step, CheckedStep)


def test_compiled_network_is_used_if_planned(
    state: TrainingState, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    def compile_stub(network: nn.Module, device: torch.device) -> nn.Module:
        assert device == CPU
        compiled.append(network)
        return network

    monkeypatch.setattr(module, "compile_for", compile_stub)
    execution = Execution(CPU, "fp32", compiled=True)
    step = make_step("vit", state, state.model, recipe, execution, size=SIZE)
    for _ in range(3):
        step(batch(), 0.01)
    assert compiled == [state.model]


def test_state_is_restored_in_place(state: TrainingState, recipe: Recipe) -> None:
    step = eager_step(state, recipe)
    step(batch(), 0.01)
    before = [tensor.clone() for tensor in state.tensors()]
    addresses = [tensor.data_ptr() for tensor in state.tensors()]
    with unchanged(state):
        step(batch(), 0.01)
        assert not all(map(torch.equal, state.tensors(), before))
    assert [tensor.data_ptr() for tensor in state.tensors()] == addresses
    assert all(map(torch.equal, state.tensors(), before))
    assert len(before) > 3 * len(list(state.model.parameters()))  # average and two moments


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 …"),
            "vit: the GPU's memory is too small: CUDA out of memory.",
        ),
        (
            torch.AcceleratorError("CUDA error: unspecified\nmore"),
            "vit: the GPU fails: CUDA error",
        ),
        (
            torch._dynamo.exc.TorchDynamoException("no compiler\nmany\nlines"),
            "vit: torch.compile fails: no compiler.\nSet `train.compile` to never.",
        ),
    ],
)
def test_errors_are_explained(error: Exception, said: str) -> None:
    with pytest.raises(UserError) as caught, explained_errors("vit", 128):
        raise error
    assert str(caught.value).startswith(said)


def test_other_errors_stay() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explained_errors("vit", 128):
        raise RuntimeError("shapes differ")
