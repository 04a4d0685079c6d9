"""The layers of a network: their parameters and multiply-accumulates."""

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["layer", "type", "output", "parameters", "macs"]


def layer_table(model: nn.Module, image_size: int) -> "pd.DataFrame":
    """Return a row for every layer that has parameters or computes products, in order of use.

    Multiply-accumulates (MACs) are for one image, half of what PyTorch's flop counter finds. As
    usual they count convolutions, matrix products and attention, not norms and activations.

    Returns:
        Columns `layer` (dotted name), `type`, `output` (shape without the batch, such as
        `128 x 8 x 8`), `parameters` and `macs`, whose sums are the network's totals.
    """
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[str, str] = {}

    def note_shape(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[names[module]] = " x ".join(str(length) for length in output.shape[1:])

    hooks = [module.register_forward_hook(note_shape) for module in names]
    try:
        counter = _one_image(model, image_size)
    finally:
        for hook in hooks:
            hook.remove()

    flops = _own_flops(counter, type(model).__name__)
    rows = []
    for module, name in names.items():
        kind = type(module).__name__
        leaf = not any(True for _ in module.children())
        own = {key: value.numel() for key, value in module.named_parameters(recurse=False)}
        if not leaf:  # a parameter of no layer gets a row of its own
            prefix = f"{name}." if name else ""
            rows += [(prefix + key, "Parameter", "", count, 0) for key, count in own.items()]
            own = {}
        if own or flops[name]:
            rows.append((name, kind, outputs[name], sum(own.values()), flops[name] // 2))
    import pandas as pd  # slow to import

    return pd.DataFrame(rows, columns=COLUMNS)


def _one_image(model: nn.Module, image_size: int) -> FlopCounterMode:
    """Count the operations for one image; the model stays in the mode it was in."""
    was_training = model.training
    image = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    # Attention as two matrix products: not every version of PyTorch counts the fused kernels.
    products = sdpa_kernel(SDPBackend.MATH)
    try:
        with torch.no_grad(), products, FlopCounterMode(display=False) as counter:
            model.eval()(image)
    finally:
        model.train(was_training)
    return counter


def _own_flops(counter: FlopCounterMode, root: str) -> dict[str, int]:
    """Return each module's floating-point operations without its children's, by name."""
    totals = {
        name.removeprefix(root).removeprefix("."): sum(operations.values())
        for name, operations in counter.get_flop_counts().items()
        if name != "Global"
    }
    own = defaultdict(int, totals)
    for name, total in totals.items():
        if name:
            own[name.rpartition(".")[0] if "." in name else ""] -= total
    return own
