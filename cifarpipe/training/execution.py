"""How the steps of a run are computed: device, precision, memory layout, compiled or not."""

import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Train
from cifarpipe.networks.devices import device_name, memory_format, pick_precision
from cifarpipe.training.distributed import World


@dataclass(frozen=True)
class Compiling:
    """What `torch.compile` does to one architecture's train step, at its default size."""

    seconds: float
    """That it takes before the first step, with nothing in its cache."""
    saved: float
    """Seconds that it takes off a step, for each multiply-accumulate of its forward pass, times the
    threads that computed it."""


# From `make bench` (docs/performance.md): the least that it saved in either size of ViT, and the
# most that it took, in a process that had compiled nothing before. The convolutional networks gain
# next to nothing on a CPU. What is not measured is not compiled.
COMPILING = {("vit", "cpu", "bf16"): Compiling(seconds=28.0, saved=4.0e-12)}
MARGIN = 2.0  # compiling must save so many times what it costs: machines differ


@dataclass(frozen=True)
class Execution:
    """What changes how fast a run is, and its results by no more than rounding."""

    device: torch.device
    precision: str
    """`bf16` or `fp32`."""
    memory_format: torch.memory_format = torch.contiguous_format
    compiled: bool = False
    world: World = field(default_factory=World)

    def describe(self) -> dict[str, object]:
        """Return what results may depend on, as values for JSON; the same in all processes."""
        return {
            "device": device_name(self.device),
            "precision": self.precision,
            "memory_format": str(self.memory_format),
            "compiled": self.compiled,
            "processes": self.world.size,
            "torch": torch.__version__,
        }

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, laid out as it is quickest there."""
        return model.to(self.device).to(memory_format=self.memory_format)

    def stepper(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return what train steps call: the same weights, compiled where it pays.

        Called, it raises UserError where there is no compiler that works.
        """
        network = self.world.together(model)
        if not self.compiled:
            return network
        compiled = torch.compile(network)

        def step(batch: Tensor) -> Tensor:
            try:
                logits: Tensor = compiled(batch)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).strip().partition("\n")[0]
                raise UserError(
                    f"torch.compile fails: {reason}\nSet `train.compile` to never."
                ) from error
            return logits

        return step


def plan_execution(
    options: Train, arch: str, macs: float, device: torch.device, world: World
) -> Execution:
    """Choose how to compute a run.

    Args:
        options: What the user asks for.
        arch: Of the network.
        macs: Multiply-accumulates of all forward passes of the run, in all processes.
        device: Of this process.
        world: Who takes part.

    Raises:
        UserError: bf16 is asked for on a GPU that does not have it.
    """
    precision = pick_precision(options.precision, device)
    match options.compile:
        case "auto":
            compiled = compiling_pays(arch, device, precision, macs / world.size)
        case choice:
            compiled = choice == "always"
    return Execution(
        device=device,
        precision=precision,
        memory_format=memory_format(arch, device),
        compiled=compiled,
        world=world,
    )


def compiling_pays(arch: str, device: torch.device, precision: str, macs: float) -> bool:
    """Say whether compiling saves clearly more time in a run than it takes.

    Args:
        arch: Of the network.
        device: On which it is trained.
        precision: `bf16` or `fp32`.
        macs: Multiply-accumulates of all forward passes of this process.
    """
    measured = COMPILING.get((arch, device.type, precision))
    if measured is None or (device.type == "cpu" and not _can_compile()):
        return False
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return macs * measured.saved / threads > MARGIN * measured.seconds


def _can_compile() -> bool:
    """Say whether there is what PyTorch needs to compile for a CPU."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(map(shutil.which, ("g++", "clang++")))
