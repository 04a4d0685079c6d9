"""Make the origin of a network that was never trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifarpipe.networks.checkpoint import Origin


def make_origin(
    name: str,
    classes: Sequence[str],
    *,
    architecture: Mapping[str, Any] | None = None,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.2, 0.2, 0.2),
    precision: str = "fp32",
) -> Origin:
    """Return an origin of 32 × 32 images; fields that are not given have arbitrary values."""
    return Origin(
        name=name,
        architecture=architecture or {},
        recipe={"epochs": 3},
        classes=list(classes),
        image_size=32,
        mean=list(mean),
        std=list(std),
        data_fingerprint="ab" * 32,
        split_fingerprint="cd" * 32,
        seed=7,
        peak_lr=0.1,
        kept_epoch=1,
        val_accuracy=None,
        train_loss=0.5,
        execution={"device": "CPU", "precision": precision},
    )
