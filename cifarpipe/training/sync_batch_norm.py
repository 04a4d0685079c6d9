"""Batch norm with statistics over all processes of a run."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


def synchronize_batch_norms(model: nn.Module) -> None:
    """Make every `BatchNorm2d` of `model` use statistics over all processes, in place."""
    on_gpu = next(model.parameters()).is_cuda
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                if on_gpu:
                    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(child)
                else:
                    synced = CpuSyncBatchNorm2d.of(child)
                setattr(module, name, synced)


class CpuSyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for processes on a CPU, for which PyTorch has none.

    Statistics come from sums over all processes, through which gradients flow.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "CpuSyncBatchNorm2d":
        """Return a layer with the parameters and statistics of `norm`."""
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        synced.weight, synced.bias = norm.weight, norm.bias
        synced._buffers = norm._buffers
        return synced.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (PyTorch's name)
        """Normalise `[B, C, H, W]`, where B counts the images of this process."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = torch.tensor([values.numel() / self.num_features])
        sums = _SumOverAll.apply(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = values - mean[:, None, None]
        variance = _SumOverAll.apply(centred.square().sum(dim=(0, 2, 3))) / number
        self._update_statistics(mean.detach(), variance.detach() * number / (number - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _SumOverAll(Function):
    """Sum over all processes; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(_ctx: FunctionCtx, part: Tensor) -> Tensor:
        return _all_reduced(part)

    @staticmethod
    def backward(_ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(part: Tensor) -> Tensor:
    reduced = part.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced)
    return reduced
