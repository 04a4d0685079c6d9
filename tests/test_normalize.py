"""Normalisation compared with torchvision's."""

import torch
from torchvision.transforms.v2 import functional as reference

from cifarpipe.networks.normalize import normalize

MEAN = torch.tensor([0.4914, 0.4822, 0.4465])
STD = torch.tensor([0.2470, 0.2435, 0.2616])


def test_normalize_equals_torchvision() -> None:
    images = torch.randint(0, 256, (16, 32, 32, 3)).to(torch.uint8)
    before = images.clone()
    ours = normalize(images, MEAN, STD)
    scaled = reference.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True)
    theirs = reference.normalize(scaled, MEAN.tolist(), STD.tolist())
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert ours.is_contiguous()
    assert torch.equal(images, before)
