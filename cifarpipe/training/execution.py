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
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.networks.devices import device_name, memory_format
from cifarpipe.networks.precision import adapt_layers, pick_precision
from cifarpipe.training.distributed import World


@dataclass(frozen=True)
class CompileGain:
    """What `torch.compile` costs and gains for one architecture, measured at its default size."""

    seconds: float
    """To compile, with an empty cache."""
    saved: float
    """Seconds saved per step, for each multiply-accumulate of its forward pass, times the number
    of threads."""


# From `make bench` (docs/performance.md). Of ConvMixer only the gradients of depthwise convolutions
# are compiled; the other networks gain next to nothing on a CPU. What was not measured is not
# compiled.
COMPILE_GAINS = {
    ("convmixer", "cpu", "bf16"): CompileGain(seconds=15.0, saved=1.0e-11),
    ("convmixer", "cpu", "fp32"): CompileGain(seconds=15.0, saved=1.0e-11),
}
MARGIN = 2.0  # the gain must be this many times the cost, since machines differ


@dataclass(frozen=True)
class Execution:
    """What changes the speed of a run, and its results by no more than rounding."""

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
        """Move a network to the device, in the memory layout and with the layers to use there."""
        adapt_layers(model, self.device, self.precision, compiled=self.compiled)
        return model.to(self.device).to(memory_format=self.memory_format)

    def compiled_forward(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the forward pass of training steps: distributed and compiled as planned.

        The returned function raises `UserError` if there is no working compiler.
        """
        network = self.world.wrap_ddp(model)
        # Of a network with such layers, only these gain on a CPU.
        if not self.compiled or any(isinstance(m, DepthwiseConv2d) for m in model.modules()):
            return network
        compiled = torch.compile(network)

        def forward(batch: Tensor) -> Tensor:
            try:
                logits: Tensor = compiled(batch)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = str(error).strip().partition("\n")[0]
                raise UserError(
                    f"torch.compile fails: {reason}\nSet `train.compile` to never."
                ) from error
            return logits

        return forward


def plan_execution(
    options: Train, arch: str, macs: float, device: torch.device, world: World
) -> Execution:
    """Choose how to compute a run.

    Args:
        options: Section `train` of params.yaml.
        arch: Of the network.
        macs: Multiply-accumulates of all forward passes of the run, in all processes.
        device: Of this process.
        world: The processes of the run.

    Raises:
        UserError: bf16 is wanted on a GPU that does not support it.
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
    """Return whether compiling saves clearly more time in a run than it takes.

    Args:
        arch: Of the network.
        device: It is trained on.
        precision: `bf16` or `fp32`.
        macs: Multiply-accumulates of all forward passes of this process.
    """
    gain = COMPILE_GAINS.get((arch, device.type, precision))
    if gain is None or (device.type == "cpu" and not _can_compile()):
        return False
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return macs * gain.saved / threads > MARGIN * gain.seconds


def _can_compile() -> bool:
    """Return whether this machine has what PyTorch needs to compile for a CPU."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(map(shutil.which, ("g++", "clang++")))
