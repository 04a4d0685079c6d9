"""What a run leaves behind: the key of its state, its progress and its model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import cifarpipe
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.data.preparation import prepare
from cifarpipe.models.build import build_model
from cifarpipe.networks.checkpoint import load_model
from cifarpipe.store.paths import artifact, model_report, training_log
from cifarpipe.store.prepared import Prepared, Split
from cifarpipe.training import records
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Run
from cifarpipe.training.records import run_fingerprint, save_trained, write_progress
from cifarpipe.training.state import Epoch, TrainingState
from tests.support.raw_images import make_raw, settings

CPU = Execution(torch.device("cpu"), "fp32")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Return prepared data in the current folder, which is temporary."""
    monkeypatch.chdir(tmp_path)
    return prepare(make_raw(), settings(), 0)


@pytest.fixture
def run(demo_params: Params) -> Run:
    return Run("small", demo_params.models["convmixer"], peak_lr=0.1, seed=7, keep="best")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text("a = 1")
    return path


def make_state(run: Run, accuracies: list[float]) -> TrainingState:
    """Return the state after epochs with these validation accuracies."""
    torch.manual_seed(0)
    model = build_model(run.recipe.architecture, num_classes=3, image_size=8)
    state = TrainingState(model, run.recipe)
    for number, accuracy in enumerate(accuracies, start=1):
        row = Epoch(number, 1.5 / number, 0.25, 0.5, accuracy, 0.01234567, 2.5)
        torch.nn.init.constant_(model.head.bias, number)
        state.finish_epoch(row, run.keep)
    return state


# The key of the state.


def test_fingerprint_is_reproducible(run: Run, data: Prepared, stage: Path) -> None:
    assert run_fingerprint(run, data, CPU, stage) == run_fingerprint(run, data, CPU, stage)


@pytest.mark.parametrize(
    "change",
    [
        {"peak_lr": 0.2},
        {"seed": 8},
        {"keep": "last"},
        {"recipe": {"epochs": 99}},
        {"recipe": {"label_smoothing": 0.2}},
        {"recipe": {"depth": 9}},
    ],
)
def test_fingerprint_depends_on_the_run(
    change: dict[str, object], run: Run, data: Prepared, stage: Path
) -> None:
    if "recipe" in change:
        change = {"recipe": run.recipe.model_copy(update=change["recipe"])}
    changed = replace(run, **change)
    assert run_fingerprint(changed, data, CPU, stage) != run_fingerprint(run, data, CPU, stage)


def test_fingerprint_ignores_the_name(run: Run, data: Prepared, stage: Path) -> None:
    renamed = replace(run, name="other")
    assert run_fingerprint(renamed, data, CPU, stage) == run_fingerprint(run, data, CPU, stage)


def test_fingerprint_depends_on_data_and_execution(run: Run, data: Prepared, stage: Path) -> None:
    def fingerprint(**changes: object) -> str:
        given = {"fingerprint": data.fingerprint, "train": data.train, "val": data.val}
        return run_fingerprint(run, SimpleNamespace(**given | changes), CPU, stage)

    original = run_fingerprint(run, data, CPU, stage)
    assert fingerprint() == original
    fewer = {
        name: Split(split.images[1:], split.labels[1:], split.index[1:])
        for name, split in (("train", data.train), ("val", data.val))
    }
    assert fingerprint(train=fewer["train"]) != original
    assert fingerprint(val=fewer["val"]) != original
    assert fingerprint(fingerprint="ab" * 32) != original
    assert run_fingerprint(run, data, replace(CPU, precision="bf16"), stage) != original


def test_processes_that_differ_are_refused(
    run: Run, data: Prepared, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = iter([{}, {"params.yaml": "other", "precision": "bf16"}])
    monkeypatch.setattr(World, "gather", lambda _world, parts: [parts, parts | next(others)])
    run_fingerprint(run, data, CPU, stage)
    with pytest.raises(UserError, match=r"machines of this training differ in params.yaml, prec"):
        run_fingerprint(run, data, CPU, stage)


def test_fingerprint_depends_on_the_code_of_training(
    run: Run, data: Prepared, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cifarpipe"
    shutil.copytree(Path(cifarpipe.__file__).parent, copy)
    monkeypatch.setattr(records.cifarpipe, "__file__", str(copy / "__init__.py"))
    before = run_fingerprint(run, data, CPU, stage)

    def changes(path: Path) -> bool:
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        changed = run_fingerprint(run, data, CPU, stage) != before
        path.write_text(text)
        return changed

    used = ("models/convmixer.py", "training/loop.py", "augment/color.py", "networks/images.py")
    assert all(changes(copy / name) for name in (*used, "store/prepared.py"))
    assert changes(stage)
    unused = ("models/vit.py", "evaluation/metrics.py", "config/schema.py", "report/pages.py")
    assert not any(changes(copy / name) for name in unused)


# Progress.


@pytest.mark.usefixtures("data")
def test_progress_writes_history_with_kept_epoch(run: Run) -> None:
    write_progress("small", make_state(run, [0.5, 0.87654, 0.75]))
    history = pd.read_csv(model_report("small", "history.csv"))
    assert list(history) == [
        "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr", "kept",
    ]  # fmt: skip
    assert history.epoch.tolist() == [1, 2, 3]
    assert history.kept.tolist() == [0, 1, 0]
    assert history.val_acc.tolist() == [0.5, 0.87654, 0.75]
    assert history.lr.tolist() == [0.0123457] * 3
    log = pd.read_csv(training_log("small"))
    assert log.seconds.tolist() == [2.5] * 3
    pd.testing.assert_frame_equal(log.drop(columns="seconds"), history)
    training = json.loads(model_report("small", "training.json").read_text())
    assert training == {"small": {"epoch": 3, "val_accuracy": 0.8765}}


@pytest.mark.usefixtures("data")
def test_progress_without_validation_has_no_accuracy(run: Run) -> None:
    write_progress("small", make_state(replace(run, keep="last"), [np.nan, np.nan]))
    training = json.loads(model_report("small", "training.json").read_text())
    assert training == {"small": {"epoch": 2, "val_accuracy": None}}


# The model.


def test_saved_model_has_kept_weights_and_origin(run: Run, data: Prepared) -> None:
    save_trained(make_state(run, [0.5, 0.75, 0.25]), run, data, CPU)
    model, origin = load_model(artifact("small", "model.safetensors"), CPU.device)
    assert model.head.bias.tolist() == [2.0] * 3
    assert (origin.kept_epoch, origin.val_accuracy, origin.train_loss) == (2, 0.75, 0.5)
    assert (origin.name, origin.seed, origin.peak_lr) == ("small", 7, 0.1)
    assert (origin.classes, origin.mean, origin.std) == (data.classes, data.mean, data.std)
    assert origin.execution == CPU.describe()
    assert not set(origin.architecture) & set(origin.recipe)
    assert origin.architecture == run.recipe.architecture
    assert {**origin.architecture, **origin.recipe} == run.recipe.given()
    origin.require(run.recipe.architecture, data)


def test_origin_tells_how_steps_were_really_computed(run: Run, data: Prepared) -> None:
    state = make_state(run, [0.5])
    state.fell_back = True
    save_trained(state, run, data, replace(CPU, compiled=True, graphed=True))
    _, origin = load_model(artifact("small", "model.safetensors"), CPU.device)
    assert origin.execution == CPU.describe()


def test_model_without_validation_has_no_accuracy(run: Run, data: Prepared) -> None:
    data = prepare(make_raw(), settings(val_size=0), 0)
    last = replace(run, keep="last")
    save_trained(make_state(last, [np.nan, np.nan]), last, data, CPU)
    _, origin = load_model(artifact("small", "model.safetensors"), CPU.device)
    assert origin.val_accuracy is None
    assert origin.kept_epoch == 2
