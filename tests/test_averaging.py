"""The moving average of weights compared with PyTorch's."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifarpipe.training.averaging import AveragedNetwork


def test_average_equals_pytorch_and_is_restored() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    ours = AveragedNetwork(model, 0.9)
    for step in range(6):
        model(torch.randn(8, 3, 5, 5) + 1)
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight)
        theirs.update_parameters(model)
        ours.update()
        if step == 2:
            saved, ours = ours.state_dict(), AveragedNetwork(model, 0.9)
            ours.load_state_dict(saved)
        expected, found = theirs.module.state_dict(), ours.module.state_dict()
        for key, tensor in expected.items():
            if tensor.is_floating_point():
                torch.testing.assert_close(found[key], tensor)
            else:  # copied here; PyTorch averages and rounds integers
                assert torch.equal(found[key], model.state_dict()[key])
    assert not torch.equal(ours.module[0].weight, model[0].weight)
