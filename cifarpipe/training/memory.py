"""Refuse a training step on a CPU that needs more memory than there is, before the first one.

Without this the system kills the training without a word. A GPU reports it by itself.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Recipe
from cifarpipe.networks.precision import autocast
from cifarpipe.training.execution import Execution
from cifarpipe.training.optimizers import state_values

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
GIB = 2**30


def check_memory(
    name: str,
    model: nn.Module,
    image_size: int,
    batch_size: int,
    execution: Execution,
    recipe: Recipe,
) -> None:
    """Refuse batches whose step does not fit the free memory of a CPU's machine.

    Args:
        name: Of the model.
        model: As it is trained, on its device.
        image_size: Height and width of the images.
        batch_size: Images of a step in this process.
        execution: Device and precision; nothing is checked on a GPU.
        recipe: Its optimizer and its batch size.

    Raises:
        UserError: The step needs more than what is free.
    """
    free = free_bytes() if execution.device.type == "cpu" else None
    if free is None:
        return
    weights = weight_bytes(model)
    # Beside the optimizer's state: activations, and when these are freed the gradients.
    activations = step_bytes(model, image_size, batch_size, execution)
    needed = state_values(recipe.optimizer) * weights + max(activations, weights)
    if needed > free:
        raise UserError(
            f"{name}: a training step needs at least {needed / GIB:.1f} GiB of memory, and "
            f"{free / GIB:.1f} GiB are free.\n"
            f"Reduce `batch_size` (now {recipe.batch_size}) of its entry in params.yaml, the size "
            f"of its feature maps, for instance by a larger `patch`, or its number of weights."
        )


def weight_bytes(model: nn.Module) -> int:
    """Return the size of a network's parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def step_bytes(model: nn.Module, image_size: int, batch_size: int, execution: Execution) -> int:
    """Return how many bytes a step needs at least, on a CPU.

    That is the most that tensors take at any moment of a forward and backward pass, extrapolated
    from one and two images. What operations use inside and the optimizer's state come on top;
    gradients of the weights come when little of this is left.

    Args:
        model: As it is trained.
        image_size: Height and width of the images.
        batch_size: Images of a step.
        execution: Precision and layout.
    """
    one, two = (_peak_bytes(model, image_size, count, execution) for count in (1, 2))
    return one + (two - one) * (batch_size - 1)


def _peak_bytes(model: nn.Module, image_size: int, count: int, execution: Execution) -> int:
    """Return the most bytes that tensors take in a pass of `count` images, except the weights."""
    was_training = model.training
    model.eval()  # batch norm leaves its running statistics alone
    try:
        with (
            LiveTensors(list(model.parameters())) as live,
            # Compiling for one and two images would take longer than a small training.
            torch.compiler.set_stance("force_eager"),
        ):
            images = torch.zeros(count, 3, image_size, image_size)
            images = images.contiguous(memory_format=execution.memory_format).requires_grad_()
            with autocast(execution.device, execution.precision):
                loss = model(images).float().sum()
            # The weights' gradients do not grow with the batch, and come when little else is left.
            torch.autograd.grad(loss, images)
    finally:
        model.train(was_training)
    return live.peak


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations made, and that are not freed yet."""

    def __init__(self, besides: Sequence[Tensor]) -> None:
        """Count from 0, without these tensors and their views."""
        super().__init__()
        self.current = self.peak = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        for tensor in besides:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        _types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute, and count what is new."""
        result = operation(*arguments, **(options or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        self.current += storage.nbytes()
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, count: int) -> None:
        self.current -= count


def free_bytes() -> int | None:
    """Return how much memory the machine has left for this process; None if it is not known."""
    free = [each for each in (_free_in_system(), _free_in_group()) if each is not None]
    return min(free, default=None)


def _free_in_system() -> int | None:
    """Return what Linux could give to a process without swapping."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None


def _free_in_group() -> int | None:
    """Return what the limit of this container still allows, where there is one."""
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        (cache,) = (line for line in lines if line.startswith("inactive_file "))
        return limit - used + int(cache.split()[1])
    except (OSError, ValueError):  # no group, or no limit: `max`
        return None
