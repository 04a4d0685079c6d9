"""An exponential moving average of a network's weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedNetwork:
    """A second network whose weights follow those of the first one slowly.

    As PyTorch's `AveragedModel` with `use_buffers`, but for its counter of updates: that one lies
    on the CPU, and moving it to a GPU in every step waits for all that was launched before.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with nothing seen.

        Args:
            model: Which is followed.
            decay: How much of the average stays at an update; the first one takes all weights over.
        """
        self.module = copy.deepcopy(model)
        self._average = get_ema_multi_avg_fn(decay)
        self._begun = False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of `model`, and its statistics; whole numbers are taken over."""
        own, new = self._tensors(self.module), self._tensors(model)
        if self._begun:
            floats = [i for i, tensor in enumerate(new) if tensor.is_floating_point()]
            self._average([own[i] for i in floats], [new[i] for i in floats], 0)
        for mine, its in zip(own, new, strict=True):
            if not self._begun or not its.is_floating_point():
                mine.copy_(its)
        self._begun = True

    @staticmethod
    def _tensors(model: nn.Module) -> list[Tensor]:
        return [*model.parameters(), *model.buffers()]

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as values that `torch.save` can write."""
        return {"module": self.module.state_dict(), "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what `state_dict` was taken from."""
        self.module.load_state_dict(state["module"])
        self._begun = state["begun"]
