"""The train loop: it learns, it repeats, it stops when it must."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifarpipe.data.prepared import Split
from cifarpipe.errors import UserError
from cifarpipe.params import Params, Recipe
from cifarpipe.training import Trained, train

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
        "precision": "fp32",
        "device": CPU,
    }
    return model, train("tiny", model, recipe, **(options | changes))


def without_times(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def test_it_learns_what_can_be_learnt(recipe: Recipe) -> None:
    _, trained = run(recipe.model_copy(update={"epochs": 15, "label_smoothing": 0.0}))
    assert trained.history.val_acc.iloc[-1] > 0.9
    assert trained.history.train_loss.iloc[-1] < trained.history.train_loss.iloc[0] / 2


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_every_architecture_overfits_one_batch(name: str, demo_params: Params) -> None:
    from cifarpipe.models.build import build_model

    entry = demo_params.models[name].model_copy(
        update={
            "epochs": 60,
            "batch_size": 16,
            "schedule": "cosine",
            "plateau": None,
            "augment": demo_params.models[name].augment.model_copy(
                update={"crop": 0, "flip": False, "rotate": 0.0, "cutout": 0}
            ),
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
        peak_lr=demo_params.peak_lr(name), seed=0, keep="last", precision="fp32", device=CPU,
    )  # fmt: skip
    assert trained.history.train_acc.iloc[-1] == 1.0


def test_same_seed_gives_the_same_bits(recipe: Recipe) -> None:
    (_, first), (_, again) = run(recipe), run(recipe)
    assert all(torch.equal(first.weights[key], again.weights[key]) for key in first.weights)
    pd.testing.assert_frame_equal(without_times(first.history), without_times(again.history))


def test_another_seed_gives_another_run(recipe: Recipe) -> None:
    (_, first), (_, other) = run(recipe), run(recipe, seed=1)
    assert not torch.equal(first.weights["head.weight"], other.weights["head.weight"])


def test_an_epochs_draws_do_not_depend_on_what_was_drawn_before(recipe: Recipe) -> None:
    """Randomness is a function of (seed, epoch), so that a run can go on from any epoch."""
    from cifarpipe.training import _seed_epoch

    fresh = torch.rand(3, generator=_seed_epoch(0, 2, CPU)), torch.rand(3)
    _seed_epoch(0, 1, CPU)
    torch.rand(17)
    again = torch.rand(3, generator=_seed_epoch(0, 2, CPU)), torch.rand(3)
    assert torch.equal(fresh[0], again[0])
    assert torch.equal(fresh[1], again[1])
    assert not torch.equal(fresh[0], fresh[1])


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
    from cifarpipe.inference import compute_logits

    model = Tiny()
    model.load_state_dict(trained.weights)
    split = make_split(30, seed=5)
    logits = compute_logits(
        model, torch.from_numpy(split.images), mean=torch.full((3,), 0.5),
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
    from cifarpipe.params import SGD

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
        r"tiny: Epoch: 3 \| Train Acc: 0\.\d{4}, Val Acc: [01]\.\d{4}, Time: \d+\.\d, lr: 0\.000000"
    )
    assert re.fullmatch(pattern, lines[-1])


def test_bf16_comes_close_to_fp32(recipe: Recipe) -> None:
    (_, exact), (_, rough) = run(recipe), run(recipe, precision="bf16")
    assert rough.history.train_loss.iloc[0] == pytest.approx(
        exact.history.train_loss.iloc[0], rel=0.05
    )
