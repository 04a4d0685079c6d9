"""How the steps of a run are computed: device, precision, memory layout, compiled or not."""

import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import nn

from cifarpipe.config.schema import Train
from cifarpipe.networks.depthwise import DepthwiseConv2d
from cifarpipe.networks.devices import device_name, memory_format
from cifarpipe.networks.precision import adapt_layers, pick_precision
from cifarpipe.training.distributed import World

COMPILE_SECONDS = 15.0  # to compile depthwise gradients for a CPU, with an empty cache, at most
MARGIN = 2.0  # the gain must be this many times the cost, since machines differ


@dataclass(frozen=True)
class Execution:
    """What changes the speed of a run, and its results by no more than rounding."""

    device: torch.device
    precision: str
    """`bf16` or `fp32`."""
    memory_format: torch.memory_format = torch.contiguous_format
    compiled: bool = False
    graphed: bool = False
    """Whether steps are replayed as a CUDA graph."""
    required: bool = False
    """If compiled or graphed steps can't be used: whether to fail, not to go on eagerly."""
    world: World = field(default_factory=World)

    def describe(self) -> dict[str, object]:
        """Return what results may depend on, as values for JSON; the same in all processes."""
        return {
            "device": device_name(self.device),
            "precision": self.precision,
            "memory_format": str(self.memory_format),
            "compiled": self.compiled,
            "graphed": self.graphed,
            "processes": self.world.size,
            "torch": torch.__version__,
        }

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the memory layout and with the layers to use there."""
        adapt_layers(model, self.device, self.precision, compiled=self.compiled)
        return model.to(self.device).to(memory_format=self.memory_format)

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """Queue the block's work on a stream of its own if steps are replayed as graphs.

        The default stream can't be captured. Nor can a step if autograd nodes of its parameters
        from another stream are alive, so all of a training, from placing its network on, belongs
        in such a block.
        """
        if not self.graphed:
            yield
            return
        stream, outside = training_stream(self.device), torch.cuda.current_stream()
        stream.wait_stream(outside)
        with torch.cuda.stream(stream):
            yield
        outside.wait_stream(stream)

    def compiles_network(self, model: nn.Module) -> bool:
        """Return whether the network is compiled as a whole.

        Of a network with depthwise convolutions, only their gradients gain from it on a CPU.
        """
        return self.compiled and not any(isinstance(m, DepthwiseConv2d) for m in model.modules())


@cache
def training_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU on which this process trains."""
    return torch.cuda.Stream(device)


def plan_execution(
    options: Train, network: nn.Module, macs: float, device: torch.device, world: World
) -> Execution:
    """Choose how to compute a run.

    Args:
        options: Section `train` of params.yaml.
        network: What is trained.
        macs: Multiply-accumulates of all forward passes of the run, in all processes.
        device: Of this process.
        world: The processes of the run.

    Raises:
        UserError: bf16 is wanted on a GPU that does not support it.
    """
    precision = pick_precision(options.precision, device)
    on_gpu = device.type == "cuda"
    compiled = options.compile != "never"
    if options.compile == "auto" and not on_gpu:
        compiled = compiling_pays(network, precision, macs / world.size)
    return Execution(
        device=device,
        precision=precision,
        memory_format=memory_format(network, device),
        compiled=compiled,
        graphed=compiled and on_gpu and world.size == 1,
        required=options.compile == "always",
        world=world,
    )


def compiling_pays(network: nn.Module, precision: str, macs: float) -> bool:
    """Return whether on a CPU compiling saves clearly more time in a run than it takes.

    What it saves was measured for some architectures: for each precision, `compile_gain` of the
    network's class has the seconds per step and multiply-accumulate of its forward pass, times the
    number of threads. Other networks are not compiled.

    Args:
        network: What is trained.
        precision: `bf16` or `fp32`.
        macs: Multiply-accumulates of all forward passes of this process.
    """
    gain = getattr(network, "compile_gain", {}).get(precision)
    if gain is None or not _can_compile():
        return False
    return macs * gain / torch.get_num_threads() > MARGIN * COMPILE_SECONDS


def _can_compile() -> bool:
    """Return whether this machine has what PyTorch needs to compile for a CPU."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(map(shutil.which, ("g++", "clang++")))
