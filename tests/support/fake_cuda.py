"""Tensors of an imaginary GPU: they have shapes, types and devices, but no values.

Code runs on them as on a GPU, except that nothing is computed. An operation on tensors of two
devices fails, and so does one that waits for the GPU: `.item()`, `nonzero`, a boolean mask.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
# Operations whose CUDA kernels add in no fixed order or refuse to run deterministically
# (torch.use_deterministic_algorithms), without those that have a deterministic variant.
NOT_DETERMINISTIC = (
    "adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "avg_pool3d_backward",
    "max_pool2d_with_indices_backward", "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward", "grid_sampler_2d_backward", "reflection_pad",
    "replication_pad2d_backward", "nll_loss2d", "histc", "bincount", "kthvalue", "median",
    "scatter_reduce", "put_", "cdist_backward", "embedding_bag",
)  # fmt: skip


class Checks(TorchDispatchMode):
    """Fails at operations without a deterministic kernel, and at generators of another device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func._schema.name.removeprefix("aten::").lstrip("_")
        generator = (kwargs or {}).get("generator")
        assert generator is None or generator.device.type == "cuda", f"{name}: generator of the CPU"
        assert not any(name.startswith(each) for each in NOT_DETERMINISTIC), name
        if name.startswith("fused_"):  # an optimizer's step, which fake tensors lack
            lists = [each for each in args if isinstance(each, list | tuple)]
            assert {tensor.device for each in lists for tensor in each} == {CUDA}
            return None
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Yield the device of an imaginary GPU, which computes bf16.

    Modules are not moved: they are to be made there, in `with device`.
    """
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(
        Tensor, "backward", lambda loss, **_: backward([loss], [torch.ones_like(loss)])
    )
    monkeypatch.setattr(Tensor, "register_hook", register_hook)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(nn.Module, "to", lambda model, *_args, **_options: model)
    monkeypatch.setattr(FakeTensor, "numpy", numbers, raising=False)
    monkeypatch.setattr(Tensor, "__deepcopy__", lambda tensor, _: tensor.detach().clone())
    monkeypatch.setattr(
        nn.Parameter, "__deepcopy__", lambda tensor, _: nn.Parameter(tensor.detach().clone())
    )
    with FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False), Checks():
        yield CUDA


def numbers(tensor: Tensor) -> NDArray[Any]:
    """Return arbitrary numbers of a tensor's shape and type."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return (np.arange(tensor.numel()) % 28).reshape(tensor.shape).astype(dtype)


Hook = Callable[[Tensor], None]
hooks: dict[tuple[Any, int], Hook] = {}


def register_hook(tensor: Tensor, hook: Hook) -> SimpleNamespace:
    """Stand in for `Tensor.register_hook`."""
    place = node_of(tensor)
    hooks[place] = hook
    return SimpleNamespace(remove=lambda: hooks.pop(place))


def backward(
    roots: Sequence[Tensor],
    gradients: Sequence[Tensor],
    wanted: Callable[[Any, int, Tensor], None] | None = None,
) -> None:
    """Run the backward pass; PyTorch's own engine asks the driver, which is not there.

    Args:
        roots: Where to start.
        gradients: Of the roots.
        wanted: Called with node, number of its output and gradient; None accumulates in `grad`.
    """
    received: dict[Any, list[Tensor | None]] = {}
    for root, gradient in zip(roots, gradients, strict=True):
        add(received, root.grad_fn, root.output_nr, gradient)
    for node in in_order([root.grad_fn for root in roots]):
        inputs = received.pop(node, None)
        if inputs is None:
            continue
        for number, gradient in enumerate(inputs):
            if gradient is not None:
                hooks.get((node, number), lambda _: None)(gradient)
                if wanted is not None:
                    wanted(node, number, gradient)
        if hasattr(node, "variable"):  # a leaf
            (gradient,) = inputs
            if wanted is None:
                old = node.variable.grad
                node.variable.grad = gradient if old is None else old + gradient
            continue
        with torch.no_grad():
            results = node(*inputs, *[None] * (len(node._input_metadata) - len(inputs)))
        results = results if isinstance(results, tuple) else (results,)
        for (following, number), gradient in zip(node.next_functions, results, strict=False):
            if following is not None and gradient is not None:
                add(received, following, number, gradient)


def add(received: dict[Any, list[Tensor | None]], node: Any, number: int, new: Tensor) -> None:
    """Add to the gradient of a node's output, in the output's shape and type."""
    output = node._input_metadata[number]
    new = new.sum_to_size(output.shape).to(output.dtype)
    gradients = received.setdefault(node, [])
    gradients.extend([None] * (number + 1 - len(gradients)))
    old = gradients[number]
    gradients[number] = new if old is None else old + new


def in_order(roots: Sequence[Any]) -> list[Any]:
    """Return the nodes of a graph, each before those that it passes gradients to."""
    found: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(each, False) for each, _ in node.next_functions if each is not None]
    return found[::-1]


def node_of(tensor: Tensor) -> tuple[Any, int]:
    """Return the node that a tensor's gradient is passed to, and the number of its output."""
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    return tensor.view_as(tensor).grad_fn.next_functions[0]  # a leaf


def grad(outputs: Tensor, inputs: Sequence[Tensor] | Tensor, **_: object) -> tuple[Tensor, ...]:
    """Stand in for `torch.autograd.grad`."""
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    places = {node_of(each): i for i, each in enumerate(inputs)}
    results: dict[int, Tensor] = {}

    def wanted(node: Any, number: int, gradient: Tensor) -> None:
        if (node, number) in places:
            results[places[node, number]] = gradient

    backward([outputs], [torch.ones_like(outputs)], wanted)
    return tuple(results[i] for i in range(len(inputs)))
