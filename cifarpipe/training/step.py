"""One training step: computed eagerly, compiled, or replayed as a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.networks.compilation import compile_for
from cifarpipe.networks.precision import autocast
from cifarpipe.training.batches import Batch
from cifarpipe.training.execution import Execution
from cifarpipe.training.optimizers import set_learning_rate
from cifarpipe.training.state import TrainingState

WARM_UP = 3  # steps before a graph is captured, as PyTorch recommends
CHECKED = 3  # steps that are compared with eager ones
# Largest relative differences that rounding explains: of a step's loss, and of the total update.
LOSS_TOLERANCE, UPDATE_TOLERANCE = 0.02, 0.3


class Step(Protocol):
    """Updates the weights once."""

    def __call__(self, batch: Batch, lr: float, /) -> tuple[Tensor, Tensor]:
        """Return the sum of losses and the number of correct predictions.

        Both are scalars on the device, valid until the next step.
        """
        ...


class EagerStep:
    """Forward and backward pass, clipping, update of the weights and of their average.

    Args:
        state: Network and optimizer.
        recipe: Label smoothing and clipping.
        execution: Device and precision.
        forward: The network's forward pass, as a batch is to be computed.
    """

    def __init__(
        self,
        state: TrainingState,
        recipe: Recipe,
        execution: Execution,
        forward: Callable[[Tensor], Tensor],
    ) -> None:
        self.state, self.recipe, self.execution, self.forward = state, recipe, execution, forward
        self.parameters = list(state.model.parameters())

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        set_learning_rate(self.state.optimizer, lr)
        return self.compute(batch)

    def compute(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Update at the current learning rate. Nothing here waits for a GPU."""
        with autocast(self.execution.device, self.execution.precision):
            logits = self.forward(batch.inputs).float()
        smoothing = self.recipe.label_smoothing or 0.0
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing, reduction="sum")
        self.state.optimizer.zero_grad()
        (loss * batch.share.scale).backward()
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.state.optimizer.step()
        if self.state.averaged:
            self.state.averaged.update()
        self.state.started = True
        hits = (logits.detach().argmax(1) == batch.labels).sum()
        return loss.detach(), hits


class GraphedStep:
    """A step that is captured once as a CUDA graph and replayed: one launch in place of hundreds.

    Only for batches like the captured one. Made and called within `Execution.own_stream`.
    """

    def __init__(self, step: EagerStep, batch: Batch, lr: float) -> None:
        """Capture the step, which changes its state."""
        self.optimizer = step.state.optimizer
        self.batch = Batch(batch.inputs.clone(), batch.targets.clone(), batch.share)
        set_learning_rate(self.optimizer, lr)
        for _ in range(WARM_UP):
            step.compute(self.batch)
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.stream(stream), torch.cuda.graph(self.graph, stream=stream):
                self.results = step.compute(self.batch)
        except RuntimeError as error:
            abandon_capture(self.graph)
            # Ending a failed capture fails too, with an error that says less.
            raise error.__context__ or error from None

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        set_learning_rate(self.optimizer, lr)
        self.batch.inputs.copy_(batch.inputs)
        self.batch.targets.copy_(batch.targets)
        self.graph.replay()
        return self.results


def abandon_capture(graph: torch.cuda.CUDAGraph) -> None:
    """Undo what a failed capture leaves: PyTorch's allocator and generator think that it goes on.

    Else memory that several streams use is never freed, and random numbers can't be drawn.
    """
    device = torch.cuda.current_device()
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device, graph.pool())
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(torch.Generator(generator.device))


class CheckedStep:
    """A fast way to compute whole batches, if it agrees with the eager way.

    At first, a few steps of both start from the same state, which is restored afterwards: the check
    changes no result. Other batches, such as the last one of an epoch, are computed eagerly.

    Args:
        name: Of the model, for messages.
        state: What the steps change.
        eager: The slow way.
        make_fast: Makes the fast way from a batch and a learning rate; it may change the state.
        size: Images of a whole batch.
        execution: Whether the fast way is required, and whether this process prints.
    """

    def __init__(
        self,
        name: str,
        state: TrainingState,
        eager: Step,
        make_fast: Callable[[Batch, float], Step],
        *,
        size: int,
        execution: Execution,
    ) -> None:
        self.name, self.state, self.eager, self.make_fast = name, state, eager, make_fast
        self.size, self.execution = size, execution
        self.chosen: Step | None = None

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """See `Step`.

        Raises:
            UserError: The fast way is required, and fails or differs.
        """
        # The first step of a run creates the optimizer's state.
        if len(batch.inputs) != self.size or not self.state.started:
            return self.eager(batch, lr)
        if self.chosen is None:
            self.chosen = self._choose(batch, lr)
        return self.chosen(batch, lr)

    def _choose(self, batch: Batch, lr: float) -> Step:
        """Return the fast way if it works, else the eager one."""
        with unchanged(self.state):
            expected = self._trial(self.eager, batch, lr)
        try:
            with unchanged(self.state):
                fast = self.make_fast(batch, lr)
            with unchanged(self.state):
                found = self._trial(fast, batch, lr)
            reason = compare(found, expected)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            reason = first_line(error)
        if reason is None:
            return fast
        if self.execution.required:
            raise UserError(
                f"{self.name}: the compiled step can't be used: {reason}.\n"
                f"Set `train.compile` to auto or never."
            )
        self.state.fell_back = True
        if self.execution.world.is_main:
            tqdm.write(f"{self.name}: training without torch.compile and CUDA graphs: {reason}")
        return self.eager

    def _trial(self, step: Step, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Return the losses of some steps, and the change of all parameters."""
        before = self._weights()
        losses = torch.stack([step(batch, lr)[0].clone() for _ in range(CHECKED)])
        return losses, self._weights() - before

    @torch.no_grad()
    def _weights(self) -> Tensor:
        return torch.cat([each.flatten() for each in self.state.model.parameters()])


def compare(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> str | None:
    """Return how losses and updates differ from the expected ones; None if only by rounding."""
    for name, tolerance, now, was in zip(
        ("losses", "updates"), (LOSS_TOLERANCE, UPDATE_TOLERANCE), found, expected, strict=True
    ):
        difference = float((now - was).norm() / was.norm())
        if not difference <= tolerance:
            return f"its {name} differ from eager ones by {difference:.2g}"
    return None


def make_step(
    name: str,
    state: TrainingState,
    network: nn.Module,
    recipe: Recipe,
    execution: Execution,
    *,
    size: int,
) -> Step:
    """Return the step of a run as planned.

    Args:
        name: Of the model, for messages.
        state: What the steps change.
        network: The network that is trained, on its device; over several processes, wrapped by DDP.
        recipe: Label smoothing and clipping.
        execution: How to compute.
        size: This process's images of a whole batch.
    """
    eager = EagerStep(state, recipe, execution, network)
    compiles = execution.compiles_network(state.model)
    if not (compiles or execution.graphed):
        return eager

    def make_fast(batch: Batch, lr: float) -> Step:
        forward = compile_for(network, execution.device) if compiles else network
        step = EagerStep(state, recipe, execution, forward)
        return GraphedStep(step, batch, lr) if execution.graphed else step

    return CheckedStep(name, state, eager, make_fast, size=size, execution=execution)


@contextmanager
def unchanged(state: TrainingState) -> Iterator[None]:
    """Restore, in place, everything that steps change, and the random generators."""
    tensors = state.tensors()
    # Detached: a copy with a history would keep nodes of it that no captured step may meet.
    before = [tensor.detach().clone() for tensor in tensors]
    devices = [tensors[0].device] if tensors[0].is_cuda else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)


@contextmanager
def explained_errors(name: str, batch_size: int) -> Iterator[None]:
    """Turn errors of a GPU and of the compiler into messages for the user.

    Raises:
        UserError: In their place.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{name}: the GPU's memory is too small: {first_line(error)}\n"
            f"Stop other programs that use it, or lower `models.{name}.batch_size` "
            f"(now {batch_size})."
        ) from error
    except torch.AcceleratorError as error:
        raise UserError(
            f"{name}: the GPU fails: {first_line(error)}.\n"
            f"Check it and its driver with `nvidia-smi`. `CUDA_VISIBLE_DEVICES= dvc repro` "
            f"computes on the CPU."
        ) from error
    except RuntimeError as error:
        if not _of_compiler(error):
            raise
        raise UserError(
            f"{name}: torch.compile fails: {first_line(error)}.\nSet `train.compile` to never."
        ) from error


def _of_compiler(error: RuntimeError) -> bool:
    """Return whether an error comes from `torch.compile`."""
    return any(
        kind.__module__.startswith(("torch._dynamo", "torch._inductor"))
        for kind in type(error).__mro__
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a full stop."""
    lines: list[Any] = str(error).strip().splitlines() or [type(error).__name__]
    return str(lines[0]).rstrip(". ")
