"""The features that a network's head reads, and its logits, in one forward pass."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.networks.precision import adapt_layers, computes_bf16
from cifarpipe.store.prepared import Prepared, Split

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier


class HeadInput(nn.Module):
    """A network without its head."""

    def __init__(self, model: "Classifier") -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # a caller that restores our mode restores the model's

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `[B, 3, S, S]` → what the head reads, `[B, …]`."""
        read: list[Tensor] = []
        handle = self.model.head.register_forward_pre_hook(
            lambda _head, inputs: read.append(*inputs)
        )
        try:
            self.model(images)
        finally:
            handle.remove()
        return read[0]


@dataclass(frozen=True)
class Embedding:
    """What a network makes of the images: features of unit length, and logits.

    F is 0 for a network without features.
    """

    train: Tensor
    """`[T, F]` of the train split."""
    test: Tensor
    """`[N, F]` of the test split."""
    logits: Tensor
    """`[N, classes]` of the test split."""


@torch.inference_mode()
def embed(
    model: "Classifier", origin: Origin, data: Prepared, batch_size: int, progress: str
) -> Embedding:
    """Compute the features that the network's head reads, of all training and test images.

    Those of the training images, of which there are most, are computed in bf16 if the network was
    trained in it and the device has instructions for it; everything else in fp32.

    Args:
        model: In evaluation mode. Without `head` it has no features.
        origin: Of its weights.
        data: The images.
        batch_size: Images per forward pass.
        progress: Label of the progress bars.
    """
    device = next(model.parameters()).device
    mean, std = origin.normalization(device)

    def compute(network: nn.Module, split: Split, what: str, precision: str = "fp32") -> Tensor:
        return compute_logits(
            network, ImageStore(split.images, device), mean=mean, std=std,
            batch_size=batch_size, precision=precision, progress=f"{progress}: {what} images",
        )  # fmt: skip

    if getattr(model, "head", None) is None:
        logits = compute(model, data.test, "logits of test")
        train, test = (logits.new_empty(len(split), 0) for split in (data.train, data.test))
        return Embedding(train, test, logits)
    fast = origin.execution["precision"] == "bf16" and computes_bf16(device)
    precision = "bf16" if fast else "fp32"
    adapted = copy.deepcopy(model)
    adapt_layers(adapted, device, precision, compiled=False)
    train = compute(HeadInput(adapted), data.train, "features of training", precision)
    test = compute(HeadInput(model), data.test, "features of test")
    train_features, test_features = (F.normalize(x.flatten(1), dim=1) for x in (train, test))
    return Embedding(train_features, test_features, model.head(test))
