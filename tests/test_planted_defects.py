"""Defects planted in synthetic data are found by a whole study."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cifarpipe.data.synthetic import CLASSES, make_synthetic
from cifarpipe.results.metrics import read_metrics
from cifarpipe.store.prepared import load_prepared
from tests.support.study import ROOT, copy_project, replace_in, run_study, succeed

pytestmark = pytest.mark.slow

MODEL = "convmixer"
TRAIN, TEST = 4400, 800
WRONG = TRAIN // 20  # training labels
DARK = "cool triangle"  # a class made dark in the test split
COPIES = 30  # of test images in the training split
SOURCE = "make = map_maker(self.model, self.method)"
RANDOM = "make = lambda batch, _: torch.randn(len(batch), 8, 8).numpy()"


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def true_labels() -> dict[bytes, int]:
    """Return the label of each training image before some were changed."""
    train = make_synthetic(TRAIN, TEST, seed=3).train
    pairs = zip(train.images, train.labels.tolist(), strict=True)
    return {image.tobytes(): label for image, label in pairs}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of one model on the damaged data."""
    folder = tmp_path_factory.mktemp("planted") / "study"
    params = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"source": "folder", "folder": "shapes", "train_size": None}
    params["models"] = {MODEL: params["models"][MODEL]}
    copy_project(folder, params)

    data, rng = make_synthetic(TRAIN, TEST, seed=3), np.random.default_rng(0)
    labels = data.train.labels.copy()
    changed = rng.permutation(TRAIN)[:WRONG]
    labels[changed] = (labels[changed] + rng.integers(1, len(CLASSES), WRONG)) % len(CLASSES)
    copied = np.concatenate([data.train.images, data.test.images[:COPIES]])
    write(folder / "data/raw/shapes/train", copied, np.append(labels, data.test.labels[:COPIES]))
    dark = data.test.images.copy()
    dark[data.test.labels == CLASSES.index(DARK)] //= 6
    dark[:COPIES] = data.test.images[:COPIES]
    write(folder / "data/raw/shapes/test", dark, data.test.labels)
    run_study(folder)
    return folder


def test_changed_training_labels_are_candidates(study: Path, true_labels: dict[bytes, int]) -> None:
    train = load_prepared(study / "data/prepared").train
    true = np.array([true_labels.get(image.tobytes(), -1) for image in np.array(train.images)])
    wrong = (true >= 0) & (true != train.labels)
    assert wrong.sum() > 0.9 * WRONG * len(train) / TRAIN
    table = pd.read_csv(study / "reports/label_candidates.csv").query("split == 'train'")
    first = table[: wrong.sum()]
    hits = wrong[first.position]
    assert hits.mean() >= 0.8
    suggested = [CLASSES.index(name) for name in first.suggested[hits]]
    assert np.mean(suggested == true[first.position[hits]]) > 0.5


def test_class_made_dark_is_a_weak_group(study: Path) -> None:
    table = pd.read_csv(study / "reports/weak_groups.csv")
    place = table.group.tolist().index(DARK)
    assert place < 3
    assert table.accuracy[place] < table.elsewhere[place] - 0.5


def test_copies_are_near_duplicates(study: Path) -> None:
    data = load_prepared(study / "data/prepared")
    train = {image.tobytes() for image in np.array(data.train.images)}
    copied = [i for i, image in enumerate(np.array(data.test.images)) if image.tobytes() in train]
    assert COPIES / 2 < len(copied) <= COPIES  # some copies are held out for validation
    table = pd.read_csv(study / "reports/near_duplicates.csv")
    assert table.position.tolist() == copied
    assert (table.correlation == 1).all()


def test_random_maps_are_called_so(study: Path) -> None:
    replace_in(study / "cifarpipe/explanations/explainer.py", SOURCE, RANDOM)
    succeed(study, "dvc", "repro", "-s", f"gradcam@{MODEL}")
    found = read_metrics(study / f"reports/models/{MODEL}/gradcam.csv")
    # Twice the interval, since the baseline is drawn, too.
    for name in ("road", "saco", "deletion", "insertion"):
        name = f"{name}_over_random"
        assert abs(found[name].value) < found[name].high - found[name].low
    concentration = found["sparseness"]
    difference = abs(concentration.value - concentration.random)
    assert difference < concentration.high - concentration.low
    change = found["max_sensitivity"]
    assert change.value == pytest.approx(change.random, rel=0.1)
    for name in ("deletion", "insertion"):
        assert found[name].value == pytest.approx(found[name].random, abs=0.05)
    succeed(study, "dvc", "repro", "-s", f"figures@{MODEL}", "report")
    summary = (study / "reports/summary.md").read_text(encoding="utf-8")
    assert "ROAD, SaCo, deletion, insertion: not significantly better than random" in summary
    assert "WARNING: under small noise, these maps are not significantly more stable" in summary
