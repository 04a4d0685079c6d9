"""The train loop: it learns, it repeats, it stops when it must."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Augment, Mix, Params, Plateau, Recipe
from cifarpipe.networks.images import ImageStore
from cifarpipe.store.prepared import Split
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Epoch, State, Trained, seed_dropout, train
from cifarpipe.training.resume import ResumeStore

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """A network small enough to be trained many times, with dropout to draw and a norm to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)
        )
        self.head = nn.Linear(8 * 4 * 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).flatten(1))


def make_split(count: int, seed: int = 0) -> Split:
    """Three classes that differ in their colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 16, 16, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 100
    return Split(images, labels, np.arange(count))


@pytest.fixture
def recipe(demo_params: Params) -> Recipe:
    changes = {"epochs": 3, "batch_size": 16, "schedule": "cosine", "plateau": None}
    return demo_params.models["convmixer"].model_copy(update=changes)


class Killed(BaseException):
    """Ends a run from within, at any place."""


def run(recipe: Recipe, **changes: object) -> tuple[nn.Module, Trained]:
    torch.manual_seed(1)
    model = Tiny()
    options = {
        "train_split": make_split(50),
        "val_split": make_split(20, seed=1),
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "peak_lr": 0.01,
        "seed": 0,
        "keep": "best",
        "classes": 3,
        "execution": Execution(CPU, "fp32"),
    }
    return model, train("tiny", model, recipe, **(options | changes))


def without_times(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def test_it_learns_what_can_be_learnt(recipe: Recipe) -> None:
    _, trained = run(recipe.model_copy(update={"epochs": 15, "label_smoothing": 0.0}))
    assert trained.history.val_acc.iloc[-1] > 0.9
    assert trained.history.train_loss.iloc[-1] < trained.history.train_loss.iloc[0] / 2


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_every_architecture_overfits_one_batch(
    name: str, demo_params: Params, no_augment: Augment
) -> None:
    from cifarpipe.models.build import build_model

    entry = demo_params.models[name].model_copy(
        update={
            "epochs": 60,
            "batch_size": 16,
            "schedule": "cosine",
            "plateau": None,
            "augment": no_augment,
        }
    )
    torch.manual_seed(0)
    model = build_model(entry, num_classes=10, image_size=32)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, 16), np.arange(16))
    empty = Split(images[:0], split.labels[:0], split.index[:0])
    trained = train(
        name, model, entry, train_split=split, val_split=empty, mean=[0.5] * 3, std=[0.25] * 3,
        peak_lr=demo_params.lr * entry.lr_scale, seed=0, keep="last", classes=10,
        execution=Execution(CPU, "fp32"),
    )  # fmt: skip
    assert trained.history.train_acc.iloc[-1] == 1.0


def test_same_seed_gives_the_same_bits(recipe: Recipe) -> None:
    (_, first), (_, again) = run(recipe), run(recipe)
    assert all(torch.equal(first.weights[key], again.weights[key]) for key in first.weights)
    pd.testing.assert_frame_equal(without_times(first.history), without_times(again.history))


def test_dropout_is_drawn_anew_for_each_epoch_and_process() -> None:
    drawn = set()
    for place in ((0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)):
        seed_dropout(*place)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 4


def test_another_seed_gives_another_run(recipe: Recipe) -> None:
    (_, first), (_, other) = run(recipe), run(recipe, seed=1)
    assert not torch.equal(first.weights["head.weight"], other.weights["head.weight"])


def test_history_has_a_row_per_epoch_and_counts_every_image(recipe: Recipe) -> None:
    """50 images in batches of 16 leave a ragged last batch of 2; rates end where they should."""
    _, trained = run(recipe, val_split=make_split(19, seed=5))
    history = trained.history
    assert history.epoch.tolist() == [1, 2, 3]
    assert ((history.train_acc * 50) % 1).pipe(lambda part: np.minimum(part, 1 - part)).max() < 1e-9
    assert set(history.val_acc) <= {hits / 19 for hits in range(20)}  # to the last digit
    assert history.lr.iloc[-1] == pytest.approx(0.0, abs=1e-12)
    assert (history.seconds > 0).all()


def test_the_best_epoch_is_kept_with_its_own_weights(recipe: Recipe) -> None:
    # A rate so high that later epochs are worse than some earlier one.
    wild = recipe.model_copy(update={"epochs": 6, "schedule": "triangular"})
    _, trained = run(wild, peak_lr=0.3, val_split=make_split(30, seed=5))
    accuracies = trained.history.val_acc
    assert trained.val_accuracy == accuracies.max()
    assert trained.kept_epoch == trained.history.epoch[accuracies == accuracies.max()].pipe(
        lambda tied: trained.history.set_index("epoch").val_loss[tied].idxmin()
    )
    from cifarpipe.networks.inference import compute_logits

    model = Tiny()
    model.load_state_dict(trained.weights)
    split = make_split(30, seed=5)
    logits = compute_logits(
        model, ImageStore(split.images, CPU), mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.25), batch_size=7,
    )  # fmt: skip
    hits = logits.argmax(1).numpy() == split.labels
    assert hits.mean() == pytest.approx(trained.val_accuracy)


def test_the_last_epoch_is_kept_when_asked(recipe: Recipe) -> None:
    model, trained = run(recipe, keep="last")
    assert trained.kept_epoch == 3
    assert torch.equal(trained.weights["head.weight"], model.head.weight)


def test_without_validation_images_the_history_says_nan(recipe: Recipe) -> None:
    empty = make_split(0)
    _, trained = run(recipe, keep="last", val_split=empty)
    assert trained.history.val_acc.isna().all()
    assert trained.val_accuracy is None


def test_plateau_follows_the_validation_loss_as_pytorchs(
    recipe: Recipe, demo_params: Params
) -> None:
    plateau = demo_params.models["resnet18_ln_plateau"].plateau
    assert plateau is not None
    changes = {
        "schedule": "plateau",
        "warmup": 0.0,
        "epochs": 12,
        "plateau": plateau.model_copy(update={"factor": 0.5, "patience": 1}),
    }
    _, trained = run(recipe.model_copy(update=changes), peak_lr=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    expected = []
    for loss in trained.history.val_loss:
        expected.append(optimizer.param_groups[0]["lr"])
        reference.step(loss)
    np.testing.assert_allclose(trained.history.lr, expected)
    assert expected[-1] < 0.3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_place(recipe: Recipe) -> None:
    no_clip = recipe.model_copy(update={"clip_norm": None, "warmup": 0.0})
    with pytest.raises(UserError, match=r"tiny: the loss is not finite in epoch \d+, step \d+"):
        run(no_clip, peak_lr=1e30)


def test_clipping_bounds_the_step(recipe: Recipe) -> None:
    from cifarpipe.config.schema import SGD

    sgd = SGD(name="sgd", momentum=0.0, nesterov=False, weight_decay=0.0, decay_on="all")
    changes = {"optimizer": sgd, "clip_norm": 0.5, "epochs": 1, "batch_size": 50, "warmup": 0.0}
    torch.manual_seed(1)
    before = Tiny().state_dict()
    _, trained = run(recipe.model_copy(update=changes | {"schedule": "plateau"}), peak_lr=1.0)
    names = [name for name, _ in Tiny().named_parameters()]
    moved = torch.cat([(trained.weights[n] - before[n]).flatten() for n in names]).norm()
    assert moved.item() == pytest.approx(0.5, rel=1e-4)


def test_the_log_has_the_promised_line(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    run(recipe)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    import re

    pattern = (
        r"tiny: Epoch: 3 \| Train Acc: [01]\.\d{4}, Val Acc: [01]\.\d{4}, "
        r"Time: \d+\.\d, lr: 0\.000000"
    )
    assert re.fullmatch(pattern, lines[-1])


def test_the_history_is_told_after_every_epoch_and_at_once_when_a_run_goes_on(
    recipe: Recipe, tmp_path: Path
) -> None:
    told: list[pd.DataFrame] = []

    def tell_and_die(history: pd.DataFrame) -> None:
        told.append(history)
        if len(told) == 2:
            raise Killed

    store = ResumeStore(tmp_path, "run")
    with pytest.raises(Killed):
        run(recipe, resume=store, tell=tell_and_die)
    store.wait()
    assert [len(history) for history in told] == [1, 2]
    store = ResumeStore(tmp_path, "run")
    _, trained = run(recipe, resume=store, tell=told.append)
    store.wait()
    assert [len(history) for history in told[2:]] == [2, 3]
    pd.testing.assert_frame_equal(told[-1], trained.history)


def test_bf16_comes_close_to_fp32(recipe: Recipe) -> None:
    (_, exact), (_, rough) = run(recipe), run(recipe, execution=Execution(CPU, "bf16"))
    assert rough.history.train_loss.iloc[0] == pytest.approx(
        exact.history.train_loss.iloc[0], rel=0.05
    )


@pytest.mark.parametrize("ended", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    recipe: Recipe, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Momentum, averaged weights, plateau and kept epoch all take part."""
    plateau = Plateau(factor=0.5, patience=0)
    changes = {"epochs": 6, "schedule": "plateau", "plateau": plateau, "ema": 0.9, "warmup": 0.0}
    wild = recipe.model_copy(update=changes)
    split = make_split(30, seed=5)
    wrong = Split(split.images, np.roll(split.labels, 1), split.index)  # so that its loss rises
    options = {"peak_lr": 0.1, "val_split": wrong}
    _, straight = run(wild, **options)
    assert len(straight.history.lr.unique()) > 1  # the plateau has something to remember

    def stop(state: State, row: Epoch, keep: str) -> None:
        if row.epoch > ended:
            raise Killed
        finish(state, row, keep)

    finish = State.finish
    store = ResumeStore(tmp_path, "run")
    monkeypatch.setattr(State, "finish", stop)
    with pytest.raises(Killed):
        run(wild, **options, resume=store)
    store.wait()
    monkeypatch.setattr(State, "finish", finish)
    store = ResumeStore(tmp_path, "run")
    _, resumed = run(wild, **options, resume=store)
    store.wait()
    pd.testing.assert_frame_equal(
        without_times(resumed.history), without_times(straight.history), check_exact=True
    )
    assert resumed.history.seconds.notna().all()
    assert resumed.kept_epoch == straight.kept_epoch
    for name, weight in straight.weights.items():
        assert torch.equal(resumed.weights[name], weight)
    # One that had ended is not trained any further.
    _, again = run(wild, **options, resume=ResumeStore(tmp_path, "run"))
    pd.testing.assert_frame_equal(again.history, resumed.history)


def test_the_average_of_weights_is_kept_and_validated(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first step the average is that step's weights; each later one moves it a part."""
    one_batch = recipe.model_copy(update={"epochs": 4, "batch_size": 50, "ema": 0.75})
    plain = one_batch.model_copy(update={"ema": 0.0})
    steps: list[dict[str, torch.Tensor]] = []
    finish = State.finish

    def note(state: State, row: Epoch, keep: str) -> None:
        finish(state, row, keep)
        steps.append(state.kept)

    monkeypatch.setattr(State, "finish", note)
    run(plain, keep="last")
    monkeypatch.setattr(State, "finish", finish)
    average = steps[0]["head.weight"]
    for step in steps[1:]:
        average = 0.75 * average + 0.25 * step["head.weight"]
    _, averaged = run(one_batch, keep="last")
    torch.testing.assert_close(averaged.weights["head.weight"], average)
    assert not torch.equal(averaged.weights["head.weight"], steps[-1]["head.weight"])
    model = Tiny()
    model.load_state_dict(averaged.weights)
    split = make_split(20, seed=1)
    with torch.no_grad():
        inputs = (torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        loss = torch.nn.functional.cross_entropy(
            model.eval()(inputs), torch.from_numpy(split.labels)
        )
    assert averaged.history.val_loss.iloc[-1] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_learnt_from(recipe: Recipe, kind: str) -> None:
    mixed = recipe.augment.model_copy(update={kind: Mix(probability=1.0, alpha=0.4)})
    changes = {"epochs": 15, "augment": mixed, "label_smoothing": 0.0}
    _, trained = run(recipe.model_copy(update=changes))
    assert trained.history.val_acc.iloc[-1] > 0.9
    assert trained.history.train_loss.iloc[-1] > 0.2  # targets of two classes are never reached
