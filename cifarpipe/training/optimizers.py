"""The optimizer of a recipe, and which parameters it treats in which way."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cifarpipe.config.recipes import AdamWOptions, MuonOptions, Recipe, SGDOptions
from cifarpipe.networks.precision import computes_bf16
from cifarpipe.training.muon import Muon


class CombinedOptimizer:
    """Several optimizers of different parameters, with the interface of one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Reset all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Update all parameters."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimizer."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for optimizer, its_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)


def make_optimizer(
    model: nn.Module, recipe: Recipe, precision: str = "fp32"
) -> torch.optim.Optimizer | CombinedOptimizer:
    """Return the recipe's optimizer of all parameters; every step sets its learning rate.

    Args:
        model: On the device that computes.
        recipe: Optimizer and weight decay.
        precision: Of the run, `bf16` or `fp32`. With `bf16`, Muon also orthogonalises in it, if the
            device has instructions for it.
    """
    device = next(model.parameters()).device
    in_bf16 = precision == "bf16" and computes_bf16(device)
    optimizer = _make(model, recipe, device, torch.bfloat16 if in_bf16 else torch.float32)
    place_learning_rate(optimizer, device)
    return optimizer


def _make(
    model: nn.Module, recipe: Recipe, device: torch.device, muon_dtype: torch.dtype
) -> torch.optim.Optimizer | CombinedOptimizer:
    options = recipe.optimizer
    groups = parameter_groups(model, options.weight_decay, options.decay_on)
    if isinstance(options, SGDOptions):
        return torch.optim.SGD(
            groups, lr=0.0, momentum=options.momentum, nesterov=options.nesterov, fused=True
        )
    capturable = device.type == "cuda"
    adamw = partial(
        torch.optim.AdamW, lr=0.0, betas=options.betas, fused=True, capturable=capturable
    )
    if isinstance(options, MuonOptions):
        hidden = hidden_kernels(model)
        muon = Muon(
            [{"params": kernels, "stacked": stacked} for stacked, kernels in hidden.items()],
            momentum=options.momentum,
            nesterov=options.nesterov,
            weight_decay=options.weight_decay,
            keep_norm=bool(options.keep_norm),
            dtype=muon_dtype,
        )
        taken = {id(kernel) for kernels in hidden.values() for kernel in kernels}
        for group in groups:
            group["params"] = [each for each in group["params"] if id(each) not in taken]
        return CombinedOptimizer(muon, adamw([group for group in groups if group["params"]]))
    return adamw(groups)


def state_values(options: AdamWOptions | SGDOptions | MuonOptions) -> int:
    """Return how many values the optimizer keeps for every weight, at least."""
    if isinstance(options, SGDOptions):
        return int(options.momentum > 0)
    return 2 if isinstance(options, AdamWOptions) else 1  # Muon uses AdamW for some weights


def place_learning_rate(
    optimizer: torch.optim.Optimizer | CombinedOptimizer, device: torch.device
) -> None:
    """Make the learning rate a tensor on a GPU; a CUDA graph would keep the value of a number.

    To be called again after a state was loaded.
    """
    if device.type == "cuda":
        for group in optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def set_learning_rate(optimizer: torch.optim.Optimizer | CombinedOptimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def state_tensors(optimizer: torch.optim.Optimizer | CombinedOptimizer) -> list[Tensor]:
    """Return what the optimizer has accumulated: momentum, averages, counts of steps."""
    single = optimizer.optimizers if isinstance(optimizer, CombinedOptimizer) else [optimizer]
    states = [state for each in single for state in each.state.values()]
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def hidden_kernels(model: nn.Module) -> dict[int, list[Tensor]]:
    """Return the kernels of all layers but the first and the last, without grouped convolutions.

    Layers come in the order in which the model registers them.

    Returns:
        Kernels by the number of maps stacked in each: the layer's `stacked`, by default 1.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    kernels: dict[int, list[Tensor]] = {}
    for layer in layers[1:-1]:
        if not (isinstance(layer, nn.Conv2d) and layer.groups > 1):
            kernels.setdefault(getattr(layer, "stacked", 1), []).append(layer.weight)
    return kernels


def parameter_groups(model: nn.Module, weight_decay: float, decay_on: str) -> list[dict[str, Any]]:
    """Split the parameters into those with and those without weight decay.

    With `decay_on: weights` only the kernels of convolutions and linear layers decay; biases, norms
    and parameters of no layer (class token, positions) do not.
    """
    kernels = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in model.parameters():
        decays = decay_on == "all" or id(parameter) in kernels
        (decayed if decays else spared).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
