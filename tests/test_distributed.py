"""Several processes: how batches are divided, and that training equals that of one process."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cifarpipe.config.machine import cores
from cifarpipe.training.distributed import World
from cifarpipe.training.launch import launch
from tests.support.distributed_training import MODELS, train_small

SIZES = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100])
def test_shares_make_up_each_batch(count: int, size: int) -> None:
    divided = [World(rank, size).shares(count, 16) for rank in range(size)]
    for step, shares in enumerate(zip(*divided, strict=True)):
        start, stop = step * 16, min(step * 16 + 16, count)
        # The mean of the processes' scaled sums of losses is the batch's mean loss.
        assert all(share.scale / size == 1 / (stop - start) for share in shares)
        positions = np.concatenate([np.arange(share.start, share.stop) for share in shares])
        assert positions.tolist() == list(range(start, stop))
        # Pairs stay together.
        assert all((share.start - start) % 2 == 0 for share in shares if len(share))


def test_single_process_gets_whole_batches() -> None:
    first, last = World().shares(17, 16)
    assert (first.start, first.stop, first.scale) == (0, 16, 1 / 16)
    assert (last.start, last.stop, last.scale) == (16, 17, 1.0)


def test_single_process_needs_no_group() -> None:
    world, model, values = World(), torch.nn.Linear(2, 2), torch.ones(3)
    assert world.is_main
    assert world.wrap_ddp(model) is model
    assert world.all_reduce(values).tolist() == [1, 1, 1]
    assert not World(1, 2).is_main


@pytest.mark.dvc
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_two_processes_train_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mixing, a last batch too small to divide, and batch norm over both processes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    launch([0, 1], "tests.support.distributed_training", str(tmp_path))
    for name in MODELS:
        single = train_small(name)
        weights = torch.load(tmp_path / f"{name}.weights", weights_only=True)
        history = pd.read_csv(tmp_path / f"{name}.csv")
        columns = ["train_loss", "train_acc", "val_loss", "val_acc", "lr"]
        np.testing.assert_allclose(history[columns], single.history()[columns], rtol=1e-4)
        assert weights.keys() == single.kept_weights.keys()
        # Compared as a whole: the true gradient of the keys' bias is zero, and AdamW turns rounding
        # errors into whole steps.
        pairs = [(weights[key].flatten(), w.flatten()) for key, w in single.kept_weights.items()]
        found, expected = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
        assert (found - expected).norm() < 1e-2 * expected.norm()
        for key, expected in single.kept_weights.items():
            if "running" in key:
                torch.testing.assert_close(weights[key], expected, rtol=2e-4, atol=2e-4)
