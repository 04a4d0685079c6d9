"""Public files about CIFAR-10's test labels: read correctly, or refused."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params, PublicLabelFiles
from cifarpipe.report.cifar10 import CIFAR10_CLASSES
from cifarpipe.report.public_labels import (
    PublicLabels,
    image_flags,
    label_table,
    load_public_labels,
)
from tests.support.report_inputs import NO_LABELS, Page, make_report, queries, results_of

CLASSES = [f"class {label}" for label in range(10)]
# In the formats of the three repositories.
CONTESTED = [
    {"id": 20, "mturk": {"given": 3, "guessed": 0, "neither": 0, "both": 2}},
    {"id": 42, "mturk": {"given": 2, "guessed": 2, "neither": 1, "both": 0}},
    {"id": 4, "mturk": {"given": 0, "guessed": 5, "neither": 0, "both": 0}},
]
DUPLICATES = "TestID,TrainID,Distance,Judgment\n6,49007,0.07,1\n42,25768,0.08,2\n6,1,0.2,2\n"


@pytest.fixture
def files(tmp_path: Path) -> PublicLabelFiles:
    counts = np.zeros((10_000, 10), np.int64)
    counts[np.arange(10_000), np.arange(10_000) % 10] = 50
    counts[7] = [10, 0, 0, 0, 0, 0, 0, 30, 0, 0]
    (tmp_path / "c.json").write_text(json.dumps(CONTESTED))
    (tmp_path / "d.csv").write_text(DUPLICATES)
    np.save(tmp_path / "h.npy", counts)
    return PublicLabelFiles(
        contested=str(tmp_path / "c.json"),
        duplicates=str(tmp_path / "d.csv"),
        human=str(tmp_path / "h.npy"),
    )


def load(files: PublicLabelFiles | None, test_files: list[str] | None = None) -> PublicLabels:
    return load_public_labels(files, CIFAR10_CLASSES, test_files)


def test_images_must_be_those_of_cifar10(files: PublicLabelFiles) -> None:
    with pytest.raises(UserError, match=r"about CIFAR-10's test images, but the classes are cat"):
        load_public_labels(files, ["cat", "dog"], None)
    assert load_public_labels(None, ["cat", "dog"], None) == PublicLabels(None, None, None)


@pytest.mark.parametrize("name", ["photo.png", "10000.png", "-1.png", "3.5.png", "²"])
def test_test_files_must_be_named_by_index(files: PublicLabelFiles, name: str) -> None:
    assert load(files, ["cat/0.png", "ship/9999.png"]).contested is not None
    with pytest.raises(UserError, match=r"named by their index in CIFAR-10, .*; 1 are not"):
        load(files, ["cat/0.png", f"ship/{name}"])


def test_each_index_is_of_one_test_file(files: PublicLabelFiles) -> None:
    """Numbered per class, a number does not say which of CIFAR-10's images a file is."""
    with pytest.raises(UserError, match=r"each index once; several files are named 4\."):
        load(files, ["cat/4.png", "cat/5.png", "ship/4.png"])


def test_files_are_read_correctly(files: PublicLabelFiles) -> None:
    labels = load(files)
    assert labels.contested.tolist() == [4, 42]  # in image 20, three of five choose the label
    assert labels.duplicates.tolist() == [6, 42]
    assert labels.human[7].tolist() == [0.25, 0, 0, 0, 0, 0, 0, 0.75, 0, 0]


@pytest.mark.parametrize("files", [None, PublicLabelFiles()])
def test_all_files_are_optional(files: PublicLabelFiles | None) -> None:
    assert load(files) == PublicLabels(None, None, None)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("contested", "{}["),
        ("contested", '[{"id": 3}]'),
        ("contested", '[{"id": 10000, "mturk": {"given": 0}}]'),
        ("contested", "[1, 2]"),
        ("duplicates", "a,b\n1,2\n"),
        ("duplicates", "TestID\n-1\n"),
        ("duplicates", "TestID\nx\n"),
        ("duplicates", ""),
        ("human", "not of numpy"),
        ("human", ""),
    ],
)
def test_wrong_file_is_refused_by_its_key(
    files: PublicLabelFiles, tmp_path: Path, key: str, content: str
) -> None:
    (tmp_path / "other").write_text(content)
    with pytest.raises(
        UserError, match=rf"report\.labels\.{key}: .*other is not the expected file"
    ):
        load(files.model_copy(update={key: str(tmp_path / "other")}))


def test_missing_files_are_named(files: PublicLabelFiles) -> None:
    labels = load(files.model_copy(update={"human": "nowhere", "contested": "nor/there"}))
    assert labels.missing == (
        "report.labels.contested: nor/there does not exist",
        "report.labels.human: nowhere does not exist",
    )
    assert labels.contested is None
    assert labels.human is None
    assert labels.duplicates.tolist() == [6, 42]


def test_wrong_shape_and_pickle_are_refused(files: PublicLabelFiles, tmp_path: Path) -> None:
    for name, array in (("shape", np.ones((5, 10))), ("pickle", np.array([{}], object))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(UserError, match=r"report\.labels\.human"):
            load(files.model_copy(update={"human": str(tmp_path / f"{name}.npy")}))
    with pytest.raises(UserError, match=r"report\.labels\.duplicates"):
        load(files.model_copy(update={"duplicates": str(tmp_path)}))  # a folder


def test_relative_path_is_below_raw_data_root(
    files: PublicLabelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFARPIPE_DATA", str(tmp_path))
    labels = load(files.model_copy(update={"contested": "c.json"}))
    assert labels.contested.tolist() == [4, 42]


def test_table_by_hand(files: PublicLabelFiles, tmp_path: Path) -> None:
    """Indices are 0, 2, 4 …: they include images 4, 6 and 42 of the files, but not 7."""
    true = np.arange(0, 80, 2) % 10
    predicted = true.copy()
    predicted[[2, 21]] += 1  # indices 4 and 42
    model = results_of(tmp_path, "m", true, predicted, classes=CLASSES)
    table = label_table([model], load(files), CLASSES).set_index("kind")
    columns = ["images", "errors", "accuracy", "accuracy_without"]
    assert table.loc["contested label", columns].tolist() == [2, 2, 0.0, 1.0]
    assert table.loc["duplicate in train", columns].tolist() == [2, 1, 0.5, round(37 / 38, 4)]
    assert table.loc["people disagree", "images"] == 0
    assert np.isnan(table.loc["people disagree", "accuracy"])
    logits = model.predictions.filter(like="logit_").to_numpy()
    own = scipy.special.log_softmax(logits, axis=1)[np.arange(40), true]
    assert table.human_loss.tolist() == pytest.approx([-own.mean()] * 3, abs=1e-4)
    assert label_table([model], NO_LABELS, CLASSES).empty


def test_people_disagree_where_few_choose_the_label(
    files: PublicLabelFiles, tmp_path: Path
) -> None:
    model = results_of(tmp_path, "m", np.arange(10), np.arange(10), classes=CLASSES)
    model.predictions["index"] = np.arange(10)
    flags = image_flags(load(files), model, CLASSES)
    assert flags["people disagree"].tolist() == [i == 7 for i in range(10)]
    assert flags["contested label"].tolist() == [i == 4 for i in range(10)]


def test_page_shows_given_labels(
    files: PublicLabelFiles, demo_params: Params, tmp_path: Path
) -> None:
    report = make_report(demo_params, tmp_path)
    assert "Public labels" not in report.html()
    labels = PublicLabels(contested=np.array([2, 140]), duplicates=None, human=None)
    report.labels = labels
    page = Page(report.html())
    assert page.table("Each model on these images")[1][:4] == [
        "high", "contested label", "2", "0",
    ]  # fmt: skip
    found = [values for _, values in queries(page) if "flag" in values]
    assert len([each for each in found if each["flag"] == "contested label"]) == 6
    data = json.loads(page.all("script")[0]["text"])
    bits = np.frombuffer(base64.b64decode(data["flags"]["contested label"]), np.uint8)
    assert np.flatnonzero(np.unpackbits(bits, count=80)).tolist() == [1, 70]
    assert re.search(r'<select name="flag">', report.html())
