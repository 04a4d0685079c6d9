"""One small study from end to end, through DVC, as its users run it."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cifarpipe.results.tables import read_table
from tests.support.study_setting import MODELS, make_study, run, succeed

pytestmark = pytest.mark.dvc


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study") / "clone")


def test_every_declared_output_is_there_and_git_holds_the_small_ones(study: Path) -> None:
    tracked = set(succeed(study, "git", "ls-files").splitlines())
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    outs = {out["path"] for stage in lock["stages"].values() for out in stage["outs"]}
    assert all((study / path).exists() for path in outs)
    assert {path for path in outs if path.startswith("reports/")} <= tracked
    assert not [path for path in tracked if path.startswith(("artifacts/", "data/prepared/"))]
    assert succeed(study, "git", "status", "--porcelain") == ""


def test_a_second_run_runs_nothing(study: Path) -> None:
    assert "Running stage" not in succeed(study, "dvc", "repro")
    assert succeed(study, "git", "status", "--porcelain") == ""


def test_the_report_is_the_same_to_the_byte_when_it_is_made_again(study: Path) -> None:
    outs = ("index.html", "summary.md", "leaderboard.csv", "pairs.csv", "curves.png")
    made = []
    for _ in range(2):
        assert "Running stage 'report'" in succeed(study, "dvc", "repro", "-f", "-s", "report")
        made.append([(study / "reports" / name).read_bytes() for name in outs])
    assert made[0] == made[1]
    assert len(made[0][0]) < 3_000_000
    assert len(made[0][1]) < 60_000
    succeed(study, "git", "checkout", "-q", ".")


@pytest.mark.parametrize(
    ("stage", "unused"),
    [
        ("prepare", {"torch", "sklearn"}),
        ("train vit", {"matplotlib", "pytorch_grad_cam", "sklearn"}),
        ("evaluate vit", {"torchvision", "torch._dynamo", "matplotlib", "pytorch_grad_cam"}),
        ("misclassified vit", {"torch", "torchvision", "sklearn"}),
        ("gradcam vit", {"torchvision", "torch._dynamo", "sklearn"}),
        ("report", {"torch", "torchvision", "sklearn", "pytorch_grad_cam"}),
    ],
)
def test_no_stage_imports_what_it_does_not_use(study: Path, stage: str, unused: set[str]) -> None:
    done = run(study, sys.executable, "-X", "importtime", "-m", *f"stages.{stage}".split())
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cifarpipe.config.schema" in loaded
    assert not unused & loaded


@pytest.mark.parametrize("name", MODELS)
def test_the_explained_images_are_the_misclassified_ones(study: Path, name: str) -> None:
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
def test_mirror_images_have_an_accuracy_beside_the_others(study: Path, name: str) -> None:
    import torch

    from cifarpipe.networks.checkpoint import load_model

    network, origin = load_model(study / f"artifacts/{name}/model.safetensors", torch.device("cpu"))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (origin.mean, origin.std))
    images = torch.from_numpy(np.load(study / "data/prepared/test_images.npy"))
    inputs = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        both = network.eval()(inputs) + network(inputs.flip(3))
    right = both.argmax(1).numpy() == np.load(study / "data/prepared/test_labels.npy")
    metrics = json.loads((study / f"reports/models/{name}/metrics.json").read_text())[name]
    assert metrics["tta_accuracy"] == pytest.approx(right.mean(), abs=1 / 200)  # a tie may break


@pytest.mark.parametrize("name", MODELS)
def test_errors_add_up_everywhere(study: Path, name: str) -> None:
    folder = study / "reports/models" / name
    metrics = json.loads((folder / "metrics.json").read_text())[name]
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


def test_the_report_names_every_model(study: Path) -> None:
    page = (study / "reports/index.html").read_text()
    summary = (study / "reports/summary.md").read_text()
    board = pd.read_csv(study / "reports/leaderboard.csv")
    assert set(board.model) == set(MODELS)
    assert all(f'id="model-{name}"' in page and f"| {name} |" in summary for name in MODELS)


def test_metrics_read_as_model_and_figure(study: Path) -> None:
    shown = json.loads(succeed(study, "dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    merged: dict[str, set[str]] = {}
    for file in files.values():
        for name, figures in file["data"].items():
            merged.setdefault(name, set()).update(figures)
    assert {"accuracy", "accuracy_low", "loss", "parameters", "macs", "gradcam"} <= merged["vit"]
    assert not any("seconds" in figure for figures in merged.values() for figure in figures)


def test_all_plots_can_be_drawn(study: Path, tmp_path: Path) -> None:
    done = run(study, "dvc", "plots", "show", "-o", str(tmp_path))
    assert done.returncode == 0
    assert "failed" not in (done.stdout + done.stderr).lower()
    page = (tmp_path / "index.html").read_text()
    assert "<DVC_METRIC" not in page
    assert "Validation accuracy" in page
    assert "gradcam.png" in page


def test_an_experiment_halves_every_rate_and_can_be_compared(study: Path) -> None:
    before = pd.read_csv(study / "reports/models/vit/history.csv")
    succeed(study, "dvc", "exp", "run", "-S", "lr=0.005")
    after = pd.read_csv(study / "reports/models/vit/history.csv")
    np.testing.assert_allclose(after.lr, before.lr / 2, rtol=1e-5)  # six digits are written
    table = succeed(study, "dvc", "metrics", "diff", "--no-path")
    assert "vit.loss" in table
    assert "convmixer.loss" in table
    assert "Running stage" not in succeed(study, "dvc", "exp", "run", "-S", "lr=0.005")
    succeed(study, "git", "checkout", "-q", ".")
    assert "Running stage 'train" not in succeed(study, "dvc", "repro")
    succeed(study, "git", "checkout", "-q", ".")


def test_a_bad_value_is_refused_and_the_message_says_how_to_undo_it(study: Path) -> None:
    done = run(study, "dvc", "exp", "run", "-S", "lr=abc")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "lr is 'abc'" in said
    assert "git checkout params.yaml" in said
    assert "Traceback" not in said
    succeed(study, "git", "checkout", "-q", ".")
    succeed(study, "dvc", "checkout", "-q")
    assert succeed(study, "git", "status", "--porcelain") == ""


def test_folders_of_pictures_with_odd_class_names_come_through_to_the_report(
    study: Path, tmp_path: Path
) -> None:
    """A class may be called anything that can be written in a line."""
    from PIL import Image

    rng = np.random.default_rng(0)
    names = ("<img src=x onerror=alert(1)>", "007")
    for half, count in (("train", 40), ("test", 12)):
        for shade, name in zip((60, 190), names, strict=True):
            folder = tmp_path / "raw" / half / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(shade - 40, shade + 40, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    clone = tmp_path / "clone"
    succeed(tmp_path, "git", "clone", "-q", str(study), str(clone))
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["data"] |= {
        "source": "folder", "folder": str(tmp_path / "raw"), "val_size": 20, "train_size": None,
        "test_size": None,
    }  # fmt: skip
    params["models"] = {"convmixer": params["models"]["convmixer"]}
    params["gradcam"]["method"]["convmixer"] = "eigencam"
    dag = yaml.safe_load((clone / "dvc.yaml").read_text())
    del dag["plots"]
    (clone / "dvc.yaml").write_text(yaml.safe_dump(dag, sort_keys=False))
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    said = succeed(clone, "dvc", "repro")
    assert "note: reports/models/vit/ belong to no model of params.yaml" in said
    page = (clone / "reports/index.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in (clone / "reports/summary.md").read_text()
    predictions = read_table(clone / "artifacts/convmixer/predictions.csv")
    assert predictions.true.tolist() == sorted(predictions.true)
    assert set(predictions.true) == set(names)
    assert predictions.file.str.split("/").str[0].tolist() == predictions.true.tolist()
