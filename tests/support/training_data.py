"""Small training data that a small network can learn, and such a network."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cifarpipe.store.prepared import Split

SIDE = 16


@dataclass(frozen=True)
class TrainingData:
    """The part of `Prepared` that training reads."""

    train: Split
    val: Split
    classes: list[str]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    image_size: int = SIDE


def coloured_split(count: int, seed: int = 0) -> Split:
    """Return random images of three classes, each brighter in a colour of its own."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(seed).integers(0, 120, (count, SIDE, SIDE, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 100
    return Split(images, labels, np.arange(count))


def coloured_data(train: int = 50, val: int = 20, val_seed: int = 1) -> TrainingData:
    """Return splits of the given sizes."""
    classes = ["red", "green", "blue"]
    return TrainingData(coloured_split(train), coloured_split(val, val_seed), classes)


class SmallNet(nn.Module):
    """A convolution, batch norm, dropout and a linear head, for three classes."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(8 * (SIDE // 4) ** 2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).flatten(1))
