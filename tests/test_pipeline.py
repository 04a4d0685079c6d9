"""One small study from end to end, through DVC, as its users run it."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cifarpipe.results.digests import read_digests
from cifarpipe.results.metrics import read_metrics
from cifarpipe.results.tables import read_table
from tests.support.study import (
    HALF,
    MODELS,
    copy_of,
    restore,
    run,
    shared_experiment,
    stages_that_ran,
    succeed,
)

pytestmark = pytest.mark.dvc


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = shared_experiment(tmp_path_factory)
    return copy_of(shared, tmp_path_factory.mktemp("pipeline") / "study")


def test_small_outputs_are_in_git(study: Path) -> None:
    tracked = set(succeed(study, "git", "ls-files").splitlines())
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    outs = {out["path"] for stage in lock["stages"].values() for out in stage["outs"]}
    assert all((study / path).exists() for path in outs)
    assert {path for path in outs if path.startswith("reports/")} <= tracked
    assert not [path for path in tracked if path.startswith(("artifacts/", "data/prepared/"))]
    assert succeed(study, "git", "status", "--porcelain") == ""


def test_second_repro_runs_nothing(study: Path) -> None:
    assert not stages_that_ran(succeed(study, "dvc", "repro"))
    assert succeed(study, "git", "status", "--porcelain") == ""


def test_status_names_only_the_stage_that_always_runs(study: Path) -> None:
    status = succeed(study, "dvc", "status").split()
    assert status == ["data/dvc.yaml:check:", "always", "changed"]


def test_report_is_byte_identical_when_repeated(study: Path) -> None:
    outs = ("index.html", "summary.md", "leaderboard.csv", "pairs.csv", "curves.csv", "curves.png")
    made = []
    for _ in range(2):
        assert stages_that_ran(succeed(study, "dvc", "repro", "-f", "-s", "report")) == {"report"}
        made.append([(study / "reports" / name).read_bytes() for name in outs])
    assert made[0] == made[1]
    assert len(made[0][0]) < 3_000_000
    assert len(made[0][1]) < 60_000
    succeed(study, "git", "checkout", "-q", ".")


@pytest.mark.parametrize(
    ("stage", "unused"),
    [
        ("check", {"numpy", "pandas", "torch"}),
        ("prepare", {"torch", "sklearn", "matplotlib"}),
        ("train vit", {"matplotlib", "pytorch_grad_cam", "sklearn"}),
        ("evaluate vit", {"torchvision", "torch._dynamo", "matplotlib", "pytorch_grad_cam"}),
        ("gradcam vit", {"torchvision", "matplotlib", "pytorch_grad_cam", "sklearn"}),
        ("misclassified vit", {"torch", "matplotlib", "sklearn"}),
        ("figures vit", {"torch", "sklearn", "pytorch_grad_cam"}),
        ("report", {"torch", "torchvision", "sklearn", "pytorch_grad_cam"}),
    ],
)
def test_stage_imports_nothing_it_does_not_use(study: Path, stage: str, unused: set[str]) -> None:
    done = run(study, sys.executable, "-X", "importtime", "-m", *f"stages.{stage}".split())
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cifarpipe.config.schema" in loaded
    assert not unused & loaded


@pytest.mark.parametrize("name", MODELS)
def test_explained_images_are_the_misclassified_ones(study: Path, name: str) -> None:
    predictions = read_table(study / f"artifacts/{name}/predictions.csv").set_index("index")
    with np.load(study / f"artifacts/{name}/cams.npz") as cams:
        assert cams["index"].tolist() == predictions.index.tolist()
        differs = (cams["predicted"] != cams["true"]).any(axis=(1, 2))
        assert differs.tolist() == (predictions.true != predictions.predicted).tolist()
    for kind in ("misclassified", "correct"):
        rows = read_table(study / f"reports/models/{name}/{kind}.csv")
        assert len(rows) == 12
        assert predictions.loc[rows["index"], "predicted"].tolist() == rows.predicted.tolist()
        assert predictions.loc[rows["index"], "true"].tolist() == rows.true.tolist()
        assert ((rows.true == rows.predicted) == (kind == "correct")).all()


@pytest.mark.parametrize("name", MODELS)
def test_tta_accuracy_averages_both_mirror_images(study: Path, name: str) -> None:
    import torch

    from cifarpipe.networks.checkpoint import load_model

    network, origin = load_model(study / f"artifacts/{name}/model.safetensors", torch.device("cpu"))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (origin.mean, origin.std))
    images = torch.from_numpy(np.load(study / "data/prepared/test_images.npy"))
    inputs = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        both = network.eval()(inputs) + network(inputs.flip(3))
    correct = both.argmax(1).numpy() == np.load(study / "data/prepared/test_labels.npy")
    metrics = read_metrics(study / f"reports/models/{name}/metrics.csv")
    tolerance = 1 / 200  # one tie may be broken differently
    assert metrics["tta_accuracy"].value == pytest.approx(correct.mean(), abs=tolerance)


@pytest.mark.parametrize("file", ["predictions.csv", "cams.npz", "neighbours.npz"])
def test_report_refuses_artifacts_of_another_run(study: Path, file: str) -> None:
    path = study / "artifacts/vit" / file
    other = (study / "artifacts/convmixer" / file).read_bytes()
    path.unlink()  # it may be a link to DVC's cache
    path.write_bytes(other)
    done = run(study, "python", "-m", "stages.report")
    assert done.returncode == 2
    assert f"artifacts/vit/{file} is not the file that reports/models/vit/e" in done.stderr
    succeed(study, "dvc", "checkout", "-q", "--force")


@pytest.mark.parametrize("name", MODELS)
def test_errors_add_up_in_all_files(study: Path, name: str) -> None:
    folder = study / "reports/models" / name
    metrics = json.loads((folder / "metrics.json").read_text())[name]
    assert read_digests(folder / "evaluated.csv")["trained_on"].startswith("CPU (")
    predictions = read_table(study / f"artifacts/{name}/predictions.csv")
    confusion = read_table(folder / "confusion.csv")
    off_diagonal = confusion.images[confusion.true != confusion.predicted].sum()
    correct = (predictions.true == predictions.predicted).sum()
    assert metrics["errors"] == off_diagonal == len(predictions) - correct
    assert metrics["accuracy"] == pytest.approx(correct / 200, abs=1e-4)
    assert predictions["index"].tolist() == list(range(200))
    labels = np.load(study / "data/prepared/test_labels.npy")
    classes = json.loads((study / "data/prepared/dataset.json").read_text())["classes"]
    assert predictions.true.tolist() == [classes[label] for label in labels]


def test_report_names_every_model(study: Path) -> None:
    page = (study / "reports/index.html").read_text()
    summary = (study / "reports/summary.md").read_text()
    board = pd.read_csv(study / "reports/leaderboard.csv")
    assert set(board.model) == set(MODELS)
    assert all(f'id="model-{name}"' in page and f"| {name} |" in summary for name in MODELS)


def test_metrics_have_at_most_nine_rows_per_model(study: Path) -> None:
    shown = json.loads(succeed(study, "dvc", "metrics", "show", "--json"))
    rows: dict[str, list[str]] = {}
    for file, content in shown[""]["data"].items():
        for name, values in content["data"].items():
            if file != "reports/dataset.json":
                rows.setdefault(name, []).extend(values)
    assert set(rows) == set(MODELS)
    assert {"accuracy", "val_accuracy", "road_over_random"} <= set(rows["vit"])
    assert all(len(names) <= 9 for names in rows.values())


def test_all_plots_can_be_drawn(study: Path, tmp_path: Path) -> None:
    done = run(study, "dvc", "plots", "show", "-o", str(tmp_path))
    assert done.returncode == 0
    assert "failed" not in (done.stdout + done.stderr).lower()
    page = (tmp_path / "index.html").read_text()
    assert "<DVC_METRIC" not in page
    assert "validation accuracy" in page
    assert "gradcam.png" in page


def test_experiment_halves_every_learning_rate(study: Path) -> None:
    before = pd.read_csv(study / "reports/models/vit/history.csv")
    succeed(study, "dvc", "exp", "apply", "half")
    after = pd.read_csv(study / "reports/models/vit/history.csv")
    np.testing.assert_allclose(after.lr, before.lr / 2, rtol=1e-5)  # six digits are written
    table = succeed(study, "dvc", "metrics", "diff", "--no-path")
    assert "vit.loss" in table
    assert "convmixer.loss" in table
    assert not stages_that_ran(succeed(study, "dvc", "exp", "run", "-S", HALF))
    succeed(study, "git", "checkout", "-q", ".")
    assert stages_that_ran(succeed(study, "dvc", "repro")) <= {"report"}
    succeed(study, "git", "checkout", "-q", ".")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=abc", "lr is 'abc'"),
        ("models.vit.depth=0", "models.vit.depth is 0"),
        ("+models.vit.detph=4", "models.vit.detph is not a known key"),
    ],
)
def test_refused_value_deletes_nothing(study: Path, setting: str, message: str) -> None:
    files = {path: path.read_bytes() for path in study.glob("artifacts/*/*")}
    done = run(study, "dvc", "exp", "run", "-S", setting)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert message in output
    assert "git checkout params.yaml" in output
    assert "Traceback" not in output
    assert succeed(study, "git", "status", "--porcelain") == " M params.yaml\n"
    assert {path: path.read_bytes() for path in study.glob("artifacts/*/*")} == files
    succeed(study, "git", "checkout", "-q", "params.yaml")
    assert not stages_that_ran(succeed(study, "dvc", "repro"))


def test_added_augmentation_key_is_used(study: Path) -> None:
    setting = ("-S", "+models.vit.augment.cutout=8")
    output = succeed(study, "dvc", "exp", "run", *setting, "train@vit", "train@convmixer")
    assert stages_that_ran(output) == {"train@vit"}
    restore(study)


def test_code_comment_reruns_training_only(study: Path) -> None:
    """The weights come out the same to the byte, so that nothing after training runs."""
    succeed(study, "git", "checkout", "-q", ".")
    loop = study / "cifarpipe/training/loop.py"
    text = loop.read_text()
    loop.write_text(text + "# A comment.\n")
    output = succeed(study, "dvc", "repro")
    assert stages_that_ran(output) == {f"train@{name}" for name in MODELS}
    loop.write_text(text)
    succeed(study, "git", "checkout", "-q", ".")
