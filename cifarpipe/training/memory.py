"""Refuse a training step that needs more memory than there is, before the first one.

Without this the system kills a training on a CPU without a word.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cifarpipe.config.errors import UserError
from cifarpipe.networks.precision import autocast
from cifarpipe.training.execution import Execution

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
GIB = 2**30


def check_memory(
    name: str, model: nn.Module, image_size: int, batch_size: int, execution: Execution
) -> None:
    """Refuse batches whose step does not fit the free memory of the device.

    Args:
        name: Of the model.
        model: As it is trained, on its device.
        image_size: Height and width of the images.
        batch_size: Images of a step in this process.
        execution: Device and precision.

    Raises:
        UserError: The step needs more than what is free.
    """
    free = free_bytes(execution.device)
    if free is None:
        return
    needed = step_bytes(model, image_size, batch_size, execution)
    if needed > free:
        raise UserError(
            f"{name}: a training step needs at least {needed / GIB:.1f} GiB of memory, and "
            f"{free / GIB:.1f} GiB are free.\n"
            f"Reduce `batch_size` (now {batch_size}) of its entry in params.yaml, or the size of "
            f"its feature maps, for instance by a larger `patch`."
        )


def step_bytes(model: nn.Module, image_size: int, batch_size: int, execution: Execution) -> int:
    """Return how many bytes a step needs at least.

    They are what the forward pass keeps for the backward pass, and the weights' gradients. The
    optimizer's state, temporary tensors and the memory that is in use already come on top.

    Args:
        model: As it is trained, on its device.
        image_size: Height and width of the images.
        batch_size: Images of a step.
        execution: Device and precision.
    """
    one, two = (_kept_bytes(model, image_size, count, execution) for count in (1, 2))
    gradients = sum(each.nbytes for each in model.parameters())
    return one + (two - one) * (batch_size - 1) + gradients


def _kept_bytes(model: nn.Module, image_size: int, count: int, execution: Execution) -> int:
    """Return the bytes of all tensors kept by a forward pass, except the weights."""
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    # Alive, so that their memory is not used again. Storages, not tensors, neither here nor in the
    # history: one that holds its own tensors is never freed.
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage

    def restore(_: None) -> Tensor:
        raise AssertionError("there is no backward pass")

    images = torch.zeros(count, 3, image_size, image_size, device=execution.device)
    images = images.contiguous(memory_format=execution.memory_format)
    was_training = model.training
    model.eval()  # batch norm leaves its running statistics alone
    try:
        with (
            saved_tensors_hooks(keep, restore),
            autocast(execution.device, execution.precision),
        ):
            model(images)
    finally:
        model.train(was_training)
    return sum(storage.nbytes() for storage in kept.values())


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None if it is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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
