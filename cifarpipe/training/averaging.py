"""An exponential moving average of a network's weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedNetwork:
    """A copy of a network whose weights are a moving average of the network's.

    Like PyTorch's `AveragedModel` with `use_buffers`, but without its counter of updates, which
    lies on the CPU: copying it to a GPU in every step waits for all kernels launched before.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy `model`.

        Args:
            model: The network to follow; its parameters and buffers must stay the same tensors.
            decay: Weight of the old average in an update; the first update copies all weights.
        """
        self.module = copy.deepcopy(model)
        self._average = get_ema_multi_avg_fn(decay)
        self._started = False
        # Walking the modules in every step takes longer than averaging a small network.
        pairs = list(zip(self._tensors(self.module), self._tensors(model), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._integers = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Average the network's weights and buffers in; integers are copied."""
        copied = self._integers
        if self._started:
            ours, theirs = map(list, zip(*self._floats, strict=True))
            self._average(ours, theirs, 0)
        else:
            copied = self._floats + self._integers
        for own, new in copied:
            own.copy_(new)
        self._started = True

    @staticmethod
    def _tensors(model: nn.Module) -> list[Tensor]:
        return [*model.parameters(), *model.buffers()]

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as values that `torch.save` can write."""
        return {"module": self.module.state_dict(), "started": self._started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self._started = state["started"]
