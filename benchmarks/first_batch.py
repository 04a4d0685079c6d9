"""Run a stage up to its first batch and leave: `python -m benchmarks.first_batch STAGE MODEL`.

What starts it measures the time: interpreter, imports, parameters, data, network.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from cifarpipe.config.command import run


def leave(*_arguments: Any, **_named: Any) -> None:
    """End the process here."""
    os._exit(0)


def leave_with_a_batch(epoch: Any) -> Any:
    """Return `epoch`, which is to yield batches, so that it ends the process at the first one."""

    def first(*arguments: Any) -> Iterator[None]:
        next(epoch(*arguments))
        leave()
        yield

    return first


def main() -> None:
    """Set the trap and run the stage."""
    stage, model = sys.argv[1:]
    if stage == "train":
        from cifarpipe.training.batches import AugmentedBatches

        AugmentedBatches.epoch = leave_with_a_batch(AugmentedBatches.epoch)  # type: ignore[method-assign]
    elif stage == "evaluate":
        from cifarpipe.networks.images import ImageStore

        ImageStore.batches = leave_with_a_batch(ImageStore.batches)  # type: ignore[method-assign]
    elif stage == "gradcam":
        from cifarpipe.explanations.explainer import Explainer

        Explainer.maps = leave  # type: ignore[method-assign]
    sys.argv = [stage, model]
    with contextlib.suppress(SystemExit):
        run(importlib.import_module(f"stages.{stage}").main)
    raise SystemExit(f"{stage} came to no batch")


if __name__ == "__main__":
    main()
