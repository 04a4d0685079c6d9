"""Several processes: how work is divided, and that they train the network that one would."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cifarpipe.config.errors import UserError
from cifarpipe.training.distributed import World, check_devices, cores, launch
from tests.support.two_processes import MODELS, learn

SIZES = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 100])
def test_the_shares_of_all_make_up_each_batch(count: int, size: int) -> None:
    divided = [World(rank, size).shares(count, 16) for rank in range(size)]
    for step, shares in enumerate(zip(*divided, strict=True)):
        start, stop = step * 16, min(step * 16 + 16, count)
        # The mean of the processes' scaled sums of losses is the batch's mean loss.
        assert all(share.scale / size == 1 / (stop - start) for share in shares)
        places = np.concatenate([np.arange(share.start, share.stop) for share in shares])
        assert places.tolist() == list(range(start, stop))
        # Pairs stay together.
        assert all((share.start - start) % 2 == 0 for share in shares if len(share))


def test_one_process_takes_everything() -> None:
    (first, last) = World().shares(17, 16)
    assert (first.start, first.stop, first.scale) == (0, 16, 1 / 16)
    assert (last.start, last.stop, last.scale) == (16, 17, 1.0)


def test_more_processes_than_devices_are_refused() -> None:
    there = torch.cuda.device_count() or cores()
    with pytest.raises(UserError, match=rf"train.devices is {there + 1}, and this machine has"):
        check_devices(there + 1)


@pytest.mark.dvc
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_two_processes_train_the_network_that_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixing, a last batch too small to divide, and batch norm over both."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    launch([0, 1], "tests.support.two_processes", str(tmp_path))
    for name in MODELS:
        alone = learn(name)
        together = torch.load(tmp_path / f"{name}.weights", weights_only=True)
        history = pd.read_csv(tmp_path / f"{name}.csv")
        figures = ["train_loss", "train_acc", "val_loss", "val_acc", "lr"]
        np.testing.assert_allclose(history[figures], alone.history[figures], rtol=1e-4)
        assert together.keys() == alone.weights.keys()
        # As a whole: AdamW makes whole steps of the keys' bias, whose true gradient is nought.
        difference = torch.cat([(together[k] - w).flatten() for k, w in alone.weights.items()])
        assert difference.norm() < 1e-2 * torch.cat([*map(torch.flatten, together.values())]).norm()
        for key in alone.weights:
            if "running" in key:
                torch.testing.assert_close(together[key], alone.weights[key], rtol=2e-4, atol=2e-4)


@pytest.mark.dvc
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_a_process_that_ends_with_2_makes_all_end_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fails.py").write_text(
        "import sys; print('error: so', file=sys.stderr); sys.exit(2)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        launch([0, 1], "fails")
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert set(said.splitlines()) == {"error: so"}, sys.stderr.write(said)
