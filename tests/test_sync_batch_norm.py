"""Batch norm over several processes compared with PyTorch's over all their images."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cifarpipe.training.sync_batch_norm import CpuSyncBatchNorm2d, synchronize_batch_norms


@pytest.fixture(params=[1, 2])
def copies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the number of processes, simulated as ones with identical images."""
    monkeypatch.setattr(dist, "all_reduce", lambda part: part.mul_(request.param))
    return request.param


def make_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(4, momentum=0.3)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def test_synced_norm_equals_norm_of_all_images(copies: int) -> None:
    torch.manual_seed(0)
    whole = make_norm()
    synced = CpuSyncBatchNorm2d.of(make_norm())
    synced.load_state_dict(whole.state_dict())
    images = (torch.randn(5, 4, 3, 3) * 2 + 1).requires_grad_()
    weights = torch.randn(images.shape)
    for _ in range(2):
        found = synced(images)
        expected = whole(torch.cat([images] * copies))
        torch.testing.assert_close(found, expected[:5])
    torch.testing.assert_close(synced.state_dict(), whole.state_dict())

    def gradient(output: Tensor, factors: Tensor) -> Tensor:
        return torch.autograd.grad((output * factors).sum(), images)[0]

    # The gradient of all processes' losses; identical images share it equally.
    total = gradient(expected, torch.cat([weights] * copies))
    torch.testing.assert_close(gradient(found, weights), total / copies, rtol=1e-4, atol=1e-5)


def test_evaluation_uses_running_statistics() -> None:
    norm = make_norm().eval()
    norm.running_mean.normal_()
    images = torch.randn(3, 4, 2, 2)
    assert torch.equal(CpuSyncBatchNorm2d.of(norm)(images), norm(images))


def test_all_batch_norms_share_their_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(make_norm()), nn.GroupNorm(1, 4))
    before = {key: value.data_ptr() for key, value in model.state_dict().items()}
    synchronize_batch_norms(model)
    assert type(model[1][0]) is CpuSyncBatchNorm2d
    assert type(model[2]) is nn.GroupNorm
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == before
