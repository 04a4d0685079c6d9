"""The origin of a network that nobody trained."""

from collections.abc import Sequence
from typing import Any

from cifarpipe.networks.checkpoint import Origin


def make_origin(
    name: str,
    classes: Sequence[str],
    *,
    entry: dict[str, Any] | None = None,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.2, 0.2, 0.2),
) -> Origin:
    """Return it; what no network depends on is made up."""
    return Origin(
        name=name,
        entry={} if entry is None else entry,
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
        execution={"device": "CPU", "precision": "fp32"},
    )
