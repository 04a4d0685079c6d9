"""Run a stage until its first batch, then exit: `python -m benchmarks.first_batch STAGE MODEL`.

The caller measures the time: of the interpreter, imports, parameters, data and network.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from cifarpipe.config.command import run


def exit_now(*_arguments: Any, **_named: Any) -> None:
    """End the process with exit code 0."""
    os._exit(0)


def exit_at_first(batches: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Return a generator function in place of `batches` that ends the process at its first one."""

    def until_first(*arguments: Any) -> Iterator[Any]:
        next(batches(*arguments))
        exit_now()
        yield

    return until_first


def main() -> None:
    """Replace what yields the first batch, and run the stage."""
    stage, model = sys.argv[1:]
    if stage == "train":
        from cifarpipe.training.batches import AugmentedBatches

        AugmentedBatches.epoch = exit_at_first(AugmentedBatches.epoch)  # type: ignore[method-assign]
    elif stage == "evaluate":
        from cifarpipe.networks.images import ImageStore

        ImageStore.batches = exit_at_first(ImageStore.batches)  # type: ignore[method-assign]
    elif stage == "gradcam":
        from cifarpipe.explanations.explainer import Explainer

        Explainer.maps = exit_now  # type: ignore[method-assign, assignment]
    sys.argv = [stage, model]
    with contextlib.suppress(SystemExit):
        run(importlib.import_module(f"stages.{stage}").main)
    raise SystemExit(f"{stage} ended before its first batch")


if __name__ == "__main__":
    main()
