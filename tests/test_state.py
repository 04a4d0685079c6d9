"""The state of a run: which epoch is kept, and its history."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from cifarpipe.config.recipes import Recipe
from cifarpipe.config.schema import Params
from cifarpipe.training.state import Epoch, TrainingState


@pytest.fixture
def recipe(demo_params: Params) -> Recipe:
    return demo_params.models["convmixer"]


def row(epoch: int, val_acc: float, val_loss: float) -> Epoch:
    return Epoch(epoch, 1.0, 0.5, val_loss, val_acc, 0.01, 2.0)


def finish(state: TrainingState, rows: list[Epoch], keep: str) -> None:
    """Finish epochs; the weights of epoch n are n."""
    for each in rows:
        nn.init.constant_(state.model.weight, each.epoch)
        state.finish_epoch(each, keep)


# The accuracy of epochs 2, 3 and 4 is the highest, and of these epoch 3 has the lowest loss.
ROWS = [row(1, 0.5, 0.1), row(2, 0.7, 0.9), row(3, 0.7, 0.8), row(4, 0.7, 0.9), row(5, 0.6, 0.2)]


@pytest.mark.parametrize(("keep", "epoch"), [("best", 3), ("last", 5)])
def test_kept_epoch_by_hand(recipe: Recipe, keep: str, epoch: int) -> None:
    state = TrainingState(nn.Linear(2, 2), recipe)
    finish(state, ROWS, keep)
    assert state.kept_epoch == epoch
    assert state.kept == ROWS[epoch - 1]
    assert (state.kept_weights["weight"] == epoch).all()
    assert state.history().kept.tolist() == [int(number == epoch) for number in range(1, 6)]


def test_first_epoch_is_kept_without_validation(recipe: Recipe) -> None:
    state = TrainingState(nn.Linear(2, 2), recipe)
    finish(state, [row(1, math.nan, math.nan)], "best")
    assert state.kept_epoch == 1


def test_averaged_weights_are_the_candidate(recipe: Recipe) -> None:
    model = nn.Linear(2, 2)
    assert TrainingState(model, recipe).candidate is model
    state = TrainingState(model, recipe.model_copy(update={"ema": 0.5}))
    assert state.averaged is not None
    assert state.candidate is state.averaged.module is not model


def test_state_is_restored(recipe: Recipe) -> None:
    averaging = recipe.model_copy(update={"ema": 0.5})
    first = TrainingState(nn.Linear(2, 2), averaging)
    first.averaged.update()
    finish(first, ROWS, "best")
    second = TrainingState(nn.Linear(2, 2), averaging)
    second.load_state_dict(first.state_dict())
    pd.testing.assert_frame_equal(second.history(), first.history())
    assert second.kept_epoch == 3
    assert torch.equal(second.model.weight, first.model.weight)
    assert torch.equal(second.averaged.module.weight, first.averaged.module.weight)
    assert torch.equal(second.kept_weights["weight"], first.kept_weights["weight"])


def test_log_line_by_hand() -> None:
    epoch = Epoch(3, 1.0, 0.49764, 2.0, 0.5534, 0.004, 1.24)
    assert epoch.log_line("vit") == (
        "vit: Epoch: 3 | Train Acc: 0.4976, Val Acc: 0.5534, Time: 1.2, lr: 0.004000"
    )
    without = replace(epoch, val_loss=math.nan, val_acc=math.nan)
    assert without.log_line("vit") == ("vit: Epoch: 3 | Train Acc: 0.4976, Time: 1.2, lr: 0.004000")
