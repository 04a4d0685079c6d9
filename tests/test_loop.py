"""Training: learning, reproducibility, keeping an epoch, resuming."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.recipes import Augment, Mix, Plateau, Recipe, SGDOptions
from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from cifarpipe.store.prepared import Split
from cifarpipe.training import loop
from cifarpipe.training import resume as resume_module
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Run, Validation, check_finite, seed_dropout, train
from cifarpipe.training.resume import ResumeStore
from cifarpipe.training.state import Epoch, TrainingState
from tests.support.architectures import MODEL_OF_ARCHITECTURE
from tests.support.histories import accumulator
from tests.support.terminal import Terminal, replace_stderr
from tests.support.training_data import SIDE, SmallNet, TrainingData, coloured_data, coloured_split

CPU = torch.device("cpu")
PLAIN_SGD = SGDOptions(name="sgd", momentum=0.0, nesterov=False, weight_decay=0.0, decay_on="all")
# One step per epoch at a constant learning rate.
SINGLE_STEPS = {
    "optimizer": PLAIN_SGD,
    "schedule": "plateau",
    "plateau": Plateau(factor=0.5, patience=9),
    "warmup": 0.0,
    "batch_size": 50,
    "clip_norm": None,
    "augment": None,
}


@pytest.fixture
def recipe(demo_params: Params) -> Recipe:
    changes = {"epochs": 3, "batch_size": 16, "schedule": "cosine"}
    return demo_params.models["convmixer"].model_copy(update=changes)


@pytest.fixture
def saves_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "INTERVAL", 0.0)


class Killed(BaseException):
    """Ends a run at any point."""


def trained(
    recipe: Recipe,
    data: TrainingData | None = None,
    *,
    dropout: float = 0.1,
    execution: Execution | None = None,
    resume: ResumeStore | None = None,
    on_epoch_end: object = None,
    **changes: object,
) -> TrainingState:
    """Train a small network, always with the same initial weights."""
    torch.manual_seed(1)
    run = replace(Run("small", recipe, peak_lr=0.01, seed=0, keep="best"), **changes)
    return train(
        SmallNet(dropout),
        data or coloured_data(),
        run,
        execution or Execution(CPU, "fp32"),
        resume=resume,
        on_epoch_end=on_epoch_end,
    )


def without_times(state: TrainingState) -> pd.DataFrame:
    return state.history().drop(columns="seconds")


def evaluate(weights: dict[str, torch.Tensor], split: Split) -> tuple[float, float]:
    """Return loss and accuracy of a small network on a split, computed plainly."""
    model = SmallNet().eval()
    model.load_state_dict(weights)
    inputs = (torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    labels = torch.from_numpy(split.labels)
    with torch.no_grad():
        logits = model(inputs)
    return F.cross_entropy(logits, labels).item(), (
        logits.argmax(1) == labels
    ).double().mean().item()


@pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())
def test_nothing_keeps_a_history_of_the_network_before_the_first_step(
    name: str, demo_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd nodes of an earlier forward pass would prevent the capture of a CUDA graph."""
    entry = demo_params.models[name]
    model = build_model(entry.architecture, num_classes=3, image_size=SIDE)
    parameters = list(model.parameters())
    passes = []

    def mark(*_: object) -> None:
        passes.append(model)
        for parameter in parameters:
            accumulator(parameter).metadata["earlier"] = True

    def make_step(*_: object, **__: object) -> object:
        assert not any("earlier" in accumulator(each).metadata for each in parameters)
        raise Killed

    model.register_forward_hook(mark)
    monkeypatch.setattr(loop, "make_step", make_step)
    run = Run(name, entry, peak_lr=0.01, seed=0, keep="best")
    with pytest.raises(Killed):
        train(model, coloured_data(), run, Execution(CPU, "bf16"))
    assert passes  # at least one forward pass, which estimates the memory of a step


def test_network_learns_separable_classes(recipe: Recipe) -> None:
    history = trained(recipe.model_copy(update={"epochs": 15, "label_smoothing": None})).history()
    assert history.val_acc.iloc[-1] > 0.9
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0] / 2


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_every_architecture_overfits_one_batch(name: str, demo_params: Params) -> None:
    changes = {"epochs": 60, "batch_size": 16, "schedule": "cosine", "augment": None}
    entry = demo_params.models[name].model_copy(update=changes)
    if name == "resnet18_ln":
        entry = entry.model_copy(update={"width": 8})
    torch.manual_seed(0)
    model = build_model(entry.architecture, num_classes=10, image_size=32)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, 16), np.arange(16))
    empty = Split(images[:0], split.labels[:0], split.index[:0])
    data = TrainingData(split, empty, [f"class {i}" for i in range(10)], image_size=32)
    run = Run(name, entry, demo_params.lr * entry.lr_scale, seed=0, keep="last")
    state = train(model, data, run, Execution(CPU, "fp32"))
    assert state.history().train_acc.iloc[-1] == 1.0


@pytest.mark.parametrize("smoothing", [None, 0.3])
def test_step_equals_plain_pytorch_step(recipe: Recipe, smoothing: float | None) -> None:
    changes = SINGLE_STEPS | {"label_smoothing": smoothing, "epochs": 1}
    state = trained(recipe.model_copy(update=changes), dropout=0.0, keep="last")
    torch.manual_seed(1)
    model = SmallNet(dropout=0.0)
    split = coloured_split(50)
    inputs = (torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing or 0.0)
    loss = criterion(model(inputs), torch.from_numpy(split.labels))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert state.history().train_loss.tolist() == pytest.approx([loss.item()])
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(state.kept_weights[name], weight)


@pytest.mark.parametrize(
    "augment", [None, {"crop": 3, "flip": "random", "cutout": 5}, {"flip": "alternating"}]
)
def test_same_seed_gives_identical_weights(
    recipe: Recipe, augment: dict[str, object] | None
) -> None:
    chosen = Augment.model_validate(augment) if augment else None
    recipe = recipe.model_copy(update={"augment": chosen})
    first, second = trained(recipe), trained(recipe)
    for name, weight in first.kept_weights.items():
        assert torch.equal(weight, second.kept_weights[name])
    pd.testing.assert_frame_equal(without_times(first), without_times(second))


def test_other_seed_gives_other_weights(recipe: Recipe) -> None:
    first, other = trained(recipe), trained(recipe, seed=1)
    assert not torch.equal(first.kept_weights["head.weight"], other.kept_weights["head.weight"])


def test_dropout_seed_differs_by_epoch_and_process() -> None:
    draws = set()
    for place in ((0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)):
        seed_dropout(*place)
        draws.add(float(torch.rand(())))
    assert len(draws) == 4


def test_training_accuracy_is_that_of_all_batches(recipe: Recipe) -> None:
    """Of a network that does not change, and without random parts."""
    fixed = {"optimizer": PLAIN_SGD, "augment": None, "ema": None, "epochs": 1, "batch_size": 16}
    data = coloured_data()
    run = Run("small", recipe.model_copy(update=fixed), peak_lr=0.0, seed=0, keep="best")
    torch.manual_seed(1)
    model = SmallNet(dropout=0.0)
    model.layers[1] = nn.Identity()  # batch norm depends on the other images
    state = train(model, data, run, Execution(CPU, "fp32"))
    inputs = (torch.from_numpy(data.train.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        hits = model(inputs).argmax(1) == torch.from_numpy(data.train.labels)
    assert 0 < hits.sum() < 50
    assert state.rows[0].train_acc == pytest.approx(hits.double().mean().item())


def test_history_counts_every_image(recipe: Recipe) -> None:
    """50 images in batches of 16 leave a last batch of 2."""
    history = trained(recipe, coloured_data(val=19, val_seed=5)).history()
    assert history.epoch.tolist() == [1, 2, 3]
    hits = history.train_acc * 50
    np.testing.assert_allclose(hits, hits.round(), atol=1e-9)
    assert set(history.val_acc) <= {hits / 19 for hits in range(20)}
    assert history.lr.iloc[-1] == pytest.approx(0.0, abs=1e-12)
    assert (history.seconds > 0).all()


def with_wrong_labels(data: TrainingData) -> TrainingData:
    """Return the data with wrong validation labels: the better the network, the lower its score."""
    val = data.val
    return replace(data, val=Split(val.images, (val.labels + 1) % 3, val.index))


def test_best_epoch_is_kept_with_its_weights(recipe: Recipe) -> None:
    # The learning rate rises so high that the first epoch is the best.
    unstable = recipe.model_copy(update={"epochs": 6, "schedule": "triangular"})
    data = coloured_data(val=30)
    state = trained(unstable, data, peak_lr=1.0)
    accuracies = state.history().val_acc
    best = int(accuracies.argmax()) + 1
    assert best < 6
    assert accuracies.nunique() > 2
    assert state.kept_epoch == best
    assert state.history().kept.tolist() == [int(epoch == best) for epoch in range(1, 7)]
    loss, accuracy = evaluate(state.kept_weights, data.val)
    assert accuracy == pytest.approx(accuracies.max()) == state.kept.val_acc
    assert loss == pytest.approx(state.kept.val_loss, rel=1e-4, abs=1e-6)


def test_last_epoch_is_kept_on_request(recipe: Recipe) -> None:
    state = trained(recipe, keep="last")
    assert state.kept_epoch == 3
    assert torch.equal(state.kept_weights["head.weight"], state.model.head.weight)


def test_validation_metrics_are_nan_without_images(recipe: Recipe) -> None:
    history = trained(recipe, coloured_data(val=0), keep="last").history()
    assert history.val_acc.isna().all()
    assert history.val_loss.isna().all()


def test_plateau_follows_validation_loss(recipe: Recipe) -> None:
    changes = {
        "schedule": "plateau",
        "warmup": 0.0,
        "epochs": 12,
        "plateau": Plateau(factor=0.5, patience=1),
    }
    history = trained(recipe.model_copy(update=changes), peak_lr=0.3).history()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    expected = []
    for loss in history.val_loss:
        expected.append(optimizer.param_groups[0]["lr"])
        reference.step(loss)
    np.testing.assert_allclose(history.lr, expected)
    assert expected[-1] < 0.3


@pytest.mark.parametrize("part", ["_make_batches", "Validation", "check_memory"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "small: the GPU's memory is too small"),
        (torch._dynamo.exc.TorchDynamoException("no compiler"), "small: torch.compile fails"),
    ],
)
def test_errors_before_the_first_step_are_explained(
    part: str, error: Exception, said: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(loop, part, fail)
    with pytest.raises(UserError, match=said):
        trained(recipe)


def test_infinite_loss_stops_with_epoch_and_step(recipe: Recipe) -> None:
    no_clip = recipe.model_copy(update={"clip_norm": None, "warmup": 0.0})
    with pytest.raises(UserError, match="small: the loss is not finite") as stopped:
        trained(no_clip, peak_lr=1e30)
    numbers = re.search(
        r"in epoch (\d+), step (\d+), at learning rate (\S+)\.\n", str(stopped.value)
    )
    assert numbers
    epoch, step, lr = map(float, numbers.groups())
    assert step < 4  # the run stops at the step, not at the end of its epoch
    done = ((epoch - 1) * 4 + step) / 12
    assert lr == pytest.approx(1e30 * (1 + math.cos(math.pi * done)) / 2, rel=1e-5)  # cosine


def test_infinite_loss_before_any_update_is_not_blamed_on_the_learning_rate() -> None:
    losses = torch.tensor([torch.nan, 1.0])
    with pytest.raises(UserError) as stopped:
        check_finite("small", losses, 1, lambda _step: 0.01)
    assert str(stopped.value).splitlines() == [
        "small: the loss is not finite in epoch 1, step 1, before the first update of the weights.",
        "The learning rate is not the cause: check the initial weights and the augmentation.",
    ]
    with pytest.raises(UserError, match=r"in epoch 2, step 1, at learning rate 0\.01\."):
        check_finite("small", losses, 2, lambda _step: 0.01)


class Unconnected(World):
    """One of several processes, whose sums over all processes are its own."""

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        return model

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def from_main(self, value: Any) -> Any:
        return value


def test_several_processes_stop_at_epoch_end(recipe: Recipe) -> None:
    """The loss of the first step is finite, all others are not."""
    no_clip = recipe.model_copy(update={"clip_norm": None, "warmup": 0.0})
    world = Unconnected(rank=0, size=2)
    with pytest.raises(UserError, match=r"in epoch 1, step 2, at") as stopped:
        trained(no_clip, peak_lr=1e30, execution=Execution(CPU, "fp32", world=world))
    rate = 1e30 * (1 + math.cos(math.pi * 2 / 12)) / 2  # of that step
    assert f"at learning rate {rate:.6g}." in str(stopped.value)


def test_processes_validate_every_image_once() -> None:
    data = coloured_data(val=19)
    torch.manual_seed(1)
    model = SmallNet()
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    parts = []
    for rank in range(3):
        execution = Execution(CPU, "fp32", world=Unconnected(rank, 3))
        parts.append(Validation(data, execution, mean, std).measure(model.eval()))
    expected = evaluate(model.state_dict(), data.val)
    assert np.sum(parts, axis=0) == pytest.approx(expected, rel=1e-5)
    assert len(set(parts)) == 3


def test_validation_uses_the_precision_of_training() -> None:
    data = coloured_data(val=19)
    torch.manual_seed(1)
    model = SmallNet().eval()
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    rounded, _ = Validation(data, Execution(CPU, "bf16"), mean, std).measure(model)
    expected, _ = evaluate(model.state_dict(), data.val)
    assert rounded == pytest.approx(expected, rel=0.05)
    assert rounded != pytest.approx(expected, rel=1e-6)


def test_oversized_augmentation_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"augment\.cutout is 17, and the images are 16 × 16"):
        trained(recipe.model_copy(update={"augment": Augment(cutout=17)}))


def test_clipping_limits_the_update(recipe: Recipe) -> None:
    clipped = recipe.model_copy(update=SINGLE_STEPS | {"clip_norm": 0.5, "epochs": 1})
    torch.manual_seed(1)
    before = SmallNet()
    after = trained(clipped, peak_lr=1.0).kept_weights
    moved = [(after[name] - weight).flatten() for name, weight in before.named_parameters()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_log_has_one_line_per_epoch(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    trained(recipe)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    pattern = (
        r"small: Epoch: 3 \| Train Acc: [01]\.\d{4}, Val Acc: [01]\.\d{4}, "
        r"Time: \d+\.\d, lr: 0\.000000"
    )
    assert re.fullmatch(pattern, lines[-1])


@pytest.mark.usefixtures("saves_each_epoch")
def test_progress_bar_counts_steps(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs of four steps; a resumed run starts with the steps that are done."""
    store = ResumeStore(tmp_path, "run")
    for epochs, first in ((2, "0/8"), (3, "8/12")):
        replace_stderr(monkeypatch, terminal := Terminal())
        trained(recipe.model_copy(update={"epochs": epochs}), resume=store)
        store.wait()
        shown = terminal.getvalue()
        assert shown.startswith("\rsmall: ")
        assert first in shown
        assert "? steps/s" in shown
        assert shown.endswith("\r")  # removed at the end


class OtherProcess(World):
    """A process that trains, and is not the main one."""

    is_main = False


@pytest.mark.usefixtures("saves_each_epoch")
def test_only_main_process_prints(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[str] = []
    trained(recipe, resume=(store := ResumeStore(tmp_path, "run")))
    store.wait()
    assert capsys.readouterr().out
    replace_stderr(monkeypatch, terminal := Terminal())
    trained(
        recipe.model_copy(update={"epochs": 4}),
        execution=Execution(CPU, "fp32", world=OtherProcess()),
        resume=store,
        on_epoch_end=lambda name, _state: calls.append(name),
    )
    store.wait()
    assert (capsys.readouterr().out, terminal.getvalue(), calls) == ("", "", [])


@pytest.mark.usefixtures("saves_each_epoch")
def test_callback_follows_epochs_and_resumption(recipe: Recipe, tmp_path: Path) -> None:
    calls: list[tuple[str, pd.DataFrame]] = []

    def record_and_kill(name: str, state: TrainingState) -> None:
        calls.append((name, state.history()))
        if len(calls) == 2:
            raise Killed

    store = ResumeStore(tmp_path, "run")
    with pytest.raises(Killed):
        trained(recipe, resume=store, on_epoch_end=record_and_kill)
    store.wait()
    assert [len(history) for _, history in calls] == [1, 2]
    store = ResumeStore(tmp_path, "run")
    state = trained(recipe, resume=store, on_epoch_end=record_and_kill)
    store.wait()
    assert [len(history) for _, history in calls[2:]] == [2, 3]
    assert {name for name, _ in calls} == {"small"}
    pd.testing.assert_frame_equal(calls[-1][1], state.history())


def test_bf16_is_close_to_fp32(recipe: Recipe) -> None:
    exact, rounded = trained(recipe), trained(recipe, execution=Execution(CPU, "bf16"))
    first, other = exact.history().train_loss[0], rounded.history().train_loss[0]
    assert other == pytest.approx(first, rel=0.05)
    assert other != first


@pytest.mark.usefixtures("saves_each_epoch")
@pytest.mark.parametrize("ended", [1, 3, 5])
def test_resumed_run_equals_uninterrupted_run(
    recipe: Recipe, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With momentum, averaged weights, plateau and a kept epoch."""
    plateau = Plateau(factor=0.5, patience=0)
    changes = {"epochs": 6, "schedule": "plateau", "plateau": plateau, "ema": 0.9, "warmup": 0.0}
    full = recipe.model_copy(update=changes)
    data = with_wrong_labels(coloured_data(val=30))  # the loss rises, so that the plateau acts
    straight = trained(full, data, peak_lr=0.1)
    assert len(straight.history().lr.unique()) > 1

    def finish_or_kill(state: TrainingState, row: Epoch, keep: str) -> None:
        if row.epoch > ended:
            raise Killed
        finish_epoch(state, row, keep)

    finish_epoch = TrainingState.finish_epoch
    store = ResumeStore(tmp_path, "run")
    monkeypatch.setattr(TrainingState, "finish_epoch", finish_or_kill)
    with pytest.raises(Killed):
        trained(full, data, peak_lr=0.1, resume=store)
    store.wait()
    monkeypatch.setattr(TrainingState, "finish_epoch", finish_epoch)
    store = ResumeStore(tmp_path, "run")
    resumed = trained(full, data, peak_lr=0.1, resume=store)
    store.wait()
    pd.testing.assert_frame_equal(without_times(resumed), without_times(straight), check_exact=True)
    assert resumed.history().seconds.notna().all()
    assert resumed.kept_epoch == straight.kept_epoch
    for name, weight in straight.kept_weights.items():
        assert torch.equal(resumed.kept_weights[name], weight)
    # A finished run is not trained further.
    again = trained(full, data, peak_lr=0.1, resume=ResumeStore(tmp_path, "run"))
    pd.testing.assert_frame_equal(again.history(), resumed.history())


def test_averaged_weights_are_validated_and_kept(recipe: Recipe) -> None:
    """With one step per epoch, and the average started from the first step's weights."""
    single_steps = recipe.model_copy(update={"epochs": 4, "batch_size": 50})
    steps: list[torch.Tensor] = []
    trained(
        single_steps,
        keep="last",
        on_epoch_end=lambda _, state: steps.append(state.kept_weights["head.weight"]),
    )
    average = steps[0]
    for step in steps[1:]:
        average = 0.75 * average + 0.25 * step
    averaged = trained(single_steps.model_copy(update={"ema": 0.75}), keep="last")
    torch.testing.assert_close(averaged.kept_weights["head.weight"], average)
    assert not torch.equal(averaged.kept_weights["head.weight"], steps[-1])
    loss, _ = evaluate(averaged.kept_weights, coloured_data().val)
    assert averaged.history().val_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_network_learns_from_mixed_images(recipe: Recipe, kind: str) -> None:
    mixed = recipe.augment.model_copy(update={kind: Mix(probability=1.0, alpha=0.4)})
    changes = {"epochs": 15, "augment": mixed, "label_smoothing": None}
    history = trained(recipe.model_copy(update=changes)).history()
    assert history.val_acc.iloc[-1] > 0.9
    assert history.train_loss.iloc[-1] > 0.2  # targets of two classes can't be reached
