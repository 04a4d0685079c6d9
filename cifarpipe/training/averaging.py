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
            model: The network to follow.
            decay: Weight of the old average in an update; the first update copies all weights.
        """
        self.module = copy.deepcopy(model)
        self._average = get_ema_multi_avg_fn(decay)
        self._started = False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average the weights and buffers of `model` in; integers are copied."""
        own, new = self._tensors(self.module), self._tensors(model)
        if self._started:
            floats = [i for i, tensor in enumerate(new) if tensor.is_floating_point()]
            self._average([own[i] for i in floats], [new[i] for i in floats], 0)
        for ours, theirs in zip(own, new, strict=True):
            if not self._started or not theirs.is_floating_point():
                ours.copy_(theirs)
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
