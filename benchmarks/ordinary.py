"""An ordinary PyTorch loop for CIFAR-10, as in tutorials: the baseline of the measurements.

A Dataset of images, torchvision's transforms of one image at a time, a DataLoader with two workers,
fp32, PyTorch's plain optimizers, and `.item()` on every batch for running loss and accuracy.
"""

import ctypes
import platform
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

Loader: TypeAlias = DataLoader[tuple[Tensor, int]]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WORKERS = 2


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images and labels in memory, as torchvision.datasets.CIFAR10 holds them."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], transform: transforms.Compose
    ) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def transform(
    *, rotate: float = 0.0, cutout: int = 0, randaugment: bool = False, train: bool = True
) -> transforms.Compose:
    """Return the transforms of an image.

    Args:
        rotate: Largest angle, in degrees; 0 for none.
        cutout: Side of the erased square; 0 for none.
        randaugment: Whether to apply RandAugment(2, 9).
        train: Whether to crop and flip.
    """
    steps: list[object] = []
    if train:
        steps += [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    if randaugment:
        steps.append(transforms.RandAugment(2, 9))
    if rotate:
        bilinear = transforms.InterpolationMode.BILINEAR
        steps.append(transforms.RandomRotation(rotate, interpolation=bilinear))
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if cutout:
        area = cutout**2 / 32**2
        steps.append(transforms.RandomErasing(1.0, scale=(area, area), ratio=(1.0, 1.0)))
    return transforms.Compose(steps)


def loader(
    dataset: ImageDataset, batch_size: int, device: torch.device, *, shuffle: bool
) -> Loader:
    """Return a DataLoader as tutorials set it up."""
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )


class PlainMuon:
    """PyTorch's own Muon for some kernels, each as one matrix, and AdamW for all else."""

    def __init__(self, model: nn.Module, kernels: Sequence[Tensor], lr: float) -> None:
        self.kernels = kernels
        self.matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels]  # views
        taken = {id(kernel) for kernel in kernels}
        rest = [each for each in model.parameters() if id(each) not in taken]
        self.muon = torch.optim.Muon(self.matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(rest, lr=lr, fused=False)

    def zero_grad(self) -> None:
        """Reset all gradients."""
        for kernel in self.kernels:
            kernel.grad = None
        self.adamw.zero_grad()

    def step(self) -> None:
        """Update all parameters."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        self.muon.step()
        self.adamw.step()


def use_default_settings(device: torch.device) -> None:
    """Undo what `pick_device` sets, so that a baseline runs as PyTorch does by itself."""
    if device.type == "cpu":
        release_freed_memory()
        return
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True


def release_freed_memory() -> None:
    """Undo `keep_freed_memory`: set what glibc by itself arrives at for large tensors."""
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold, mmap_max, trim_threshold, top_pad = -3, -4, -1, -2  # of <malloc.h>
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 65_536)
        mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**26)
        mallopt(top_pad, 2**17)


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer | PlainMuon,
    device: torch.device,
) -> tuple[float, float]:
    """Train for one epoch; return mean loss and accuracy."""
    model.train()
    total_loss = correct = seen = 0.0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return total_loss / seen, correct / seen


@torch.no_grad()
def evaluate(model: nn.Module, batches: Loader, device: torch.device) -> float:
    """Return the accuracy."""
    model.eval()
    correct = seen = 0.0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        correct += (model(images).argmax(1) == labels).sum().item()
        seen += len(labels)
    return correct / seen
