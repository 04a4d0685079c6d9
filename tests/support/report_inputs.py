"""Results of made-up models, as the stages would write them, and the report of them."""

import json
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.config.schema import Params
from cifarpipe.evaluation.calibration import Temperature, reliability_table
from cifarpipe.evaluation.metrics import (
    class_table,
    compute_metrics,
    confusion_matrix,
    confusion_table,
    softmax,
)
from cifarpipe.evaluation.selection import select_correct, select_errors
from cifarpipe.evaluation.slices import image_properties, slice_table
from cifarpipe.report.pages import render_html, render_markdown
from cifarpipe.report.public_labels import PublicLabels
from cifarpipe.report.study import ModelResults, Study
from cifarpipe.results.maps import Explanations
from cifarpipe.results.metrics import Metric, Metrics
from cifarpipe.results.neighbours import Neighbours
from cifarpipe.results.predictions import predictions_table
from cifarpipe.store.prepared import Split

NO_LABELS = PublicLabels(contested=None, duplicates=None, human=None)
SCRIPT = "<script>alert(1)</script>"
CLASSES = [SCRIPT, "007", 'a "quoted" | piped', "<img src=http://evil>"]
TITLE = '<b onclick="x()">Bold</b> & [link](#)'
PROVENANCE = {"revision": "0123456789ab with <changes>", "Python": "3.11.9"}
TRAIN = 40  # training images
MISLABELLED = 6  # one of them, by its neighbours
VOID = {"meta", "img", "br", "hr", "link", "input"}
QUALITY: Metrics = {
    "explained": Metric(80),
    "without_evidence_errors": Metric(1),
    "without_evidence_correct": Metric(0),
    "removal_images": Metric(20),
    "road": Metric(0.4, random=0.0, centre=0.2),
    "road_over_random": Metric(0.4, low=0.3, high=0.5),
    "road_over_centre": Metric(0.2, low=0.1, high=0.3),
    "saco": Metric(0.6, random=0.0, centre=0.1),
    "saco_over_random": Metric(0.6, low=0.5, high=0.7),
    "saco_over_centre": Metric(0.5, low=0.4, high=0.6),
    "sparseness": Metric(0.5, low=0.4, high=0.6, random=0.4, centre=0.3),
    "max_sensitivity": Metric(0.2, low=0.1, high=0.3, random=1.7, centre=0.0),
    "deletion": Metric(0.2, random=0.31, centre=0.32),
    "insertion": Metric(0.8, random=0.41, centre=0.42),
    "randomisation_abs_correlation": Metric(0.25, low=0.15, high=0.35, random=0.2),
    "randomisation_passed": Metric(1),
}


def make_results(
    folder: Path,
    name: str,
    *,
    accuracy: float = 0.7,
    n: int = 80,
    seed: int = 0,
    classes: list[str] | None = None,
) -> ModelResults:
    """Return the results of a model with this accuracy on n test images."""
    k = len(classes or CLASSES)
    labels = np.arange(n) % k
    shift = np.arange(n) >= round(accuracy * n)
    return results_of(folder, name, labels, (labels + shift) % k, seed=seed, classes=classes)


def results_of(
    folder: Path,
    name: str,
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    seed: int = 0,
    classes: list[str] | None = None,
) -> ModelResults:
    """Return the results of a model with these predictions."""
    classes = CLASSES if classes is None else classes
    n, k = len(labels), len(classes)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.1, (n, k)).astype(np.float32)
    logits[np.arange(n), predicted] += 3
    table = predictions_table(logits, labels, np.arange(n) * 2, classes, None)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), k)
    errors = select_errors(table, classes, count=6, seed=0)
    is_correct = labels == predicted
    for picture in ("misclassified", "correct", "gradcam", "gradcam_correct"):
        make_picture(folder / "models" / name / f"{picture}.png")
    maps = rng.normal(size=(2, n, 8, 8)).astype(np.float32)
    metrics = compute_metrics(
        logits, labels, calibration_bins=15, temperature=Temperature(1.5, 1.4, 1.6)
    )
    metrics |= {
        "val_accuracy": Metric(0.5),
        "kept_epoch": Metric(2),
    }
    true_maps = np.where(is_correct[:, None, None], maps[0], maps[1])
    return ModelResults(
        name=name,
        arch="convmixer",
        trained_on="GPU of a test, bf16",
        metrics=metrics,
        quality=dict(QUALITY),
        history=pd.DataFrame(
            {"epoch": [1, 2, 3], "train_loss": [2.0, 1.5, 1.2], "train_acc": [0.3, 0.5, 0.625]}
        ),
        layers=pd.DataFrame(
            {
                "layer": ["stem.0", "class_token"],
                "type": ["Conv2d", "Parameter"],
                "output": ["8 x 4 x 4", ""],
                "parameters": [1_234_000, 567],
                "macs": [2_500_000, 0],
            }
        ),
        per_class=class_table(matrix, classes),
        calibration=reliability_table(softmax(logits), labels, 15),
        slices=slice_table(image_properties(make_images(n)), is_correct),
        confusion=confusion_table(matrix, classes),
        misclassified=errors,
        correct=select_correct(table, classes, errors, seed=0),
        predictions=table,
        explanations=Explanations("layercam", np.arange(n) * 2, maps[0], true_maps, True),
        neighbours=make_neighbours(n, k),
    )


def make_neighbours(test: int, classes: int) -> Neighbours:
    """Return neighbours among `TRAIN` images; those of one training image have another label."""
    votes = np.zeros((TRAIN, classes), np.uint8)
    votes[np.arange(TRAIN), np.arange(TRAIN) % classes] = 8
    votes[MISLABELLED] = np.roll(votes[MISLABELLED], 1)
    nearest = (np.arange(test)[:, None] + np.arange(5)) % TRAIN
    similarity = np.broadcast_to(np.linspace(0.9, 0.5, 5), nearest.shape)
    clusters, centres = np.arange(test) // (test // 2) % 2, np.array([0, test - 1])
    return Neighbours(
        nearest.astype(np.int32),
        similarity.astype(np.float32),
        votes,
        clusters.astype(np.int32),
        centres.astype(np.int32),
    )


def make_split(count: int, classes: int, step: int) -> Split:
    """Return images whose labels take turns, as the made-up models were asked about."""
    index = np.arange(count)
    return Split(make_images(count), index % classes, index * step)


def make_images(count: int, size: int = 32) -> NDArray[np.uint8]:
    """Return images of one colour each, all different."""
    colours = np.arange(count)[:, None] * (37, 91, 151) % 251
    images = np.empty((count, size, size, 3), np.uint8)
    images[:] = colours[:, None, None]
    return images


def make_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12, 3), (200, 40, 90), np.uint8)).save(path)


def make_dataset(classes: list[str], test: int = 80) -> dict[str, Any]:
    return {
        "source": "folder",
        "classes": classes,
        "images": {"train": 4000, "val": 100, "test": test},
        "per_class": {
            name: [count // len(classes)] * len(classes)
            for name, count in (("train", 4000), ("val", 100), ("test", test))
        },
        "image_size": 32,
        "shared": {"val_in_train": 0, "test_in_train": 3, "test_in_val": 0},
        "fingerprint": "0123456789abcdef",
    }


@dataclass
class Report:
    """The inputs of a report, and the folder of its figures."""

    folder: Path
    params: Params
    dataset: dict[str, Any]
    results: list[ModelResults]
    labels: PublicLabels = NO_LABELS

    def study(self, images: NDArray[np.uint8] | None = None) -> Study:
        classes = len(self.dataset["classes"])
        train = make_split(TRAIN, classes, step=3)
        test = make_split(self.results[0].images, classes, step=2)
        if images is not None:
            train = replace(train, images=train.images[:, : images.shape[1], : images.shape[2]])
            test = replace(test, images=images)
        return Study(self.params, self.dataset, train, test, self.results, PROVENANCE)

    def html(self, images: NDArray[np.uint8] | None = None) -> str:
        pictures = {"curves": self.folder / "curves.png", "dataset": self.folder / "dataset.png"}
        return render_html(self.study(images), labels=self.labels, pictures=pictures)

    def markdown(self) -> str:
        return render_markdown(self.study())


def make_report(params: Params, folder: Path) -> Report:
    """Return the report of three models that predict 32, 72 and 56 of 80 images correctly."""
    for name in ("curves", "dataset"):
        make_picture(folder / f"{name}.png")
    titled = params.model_copy(update={"report": params.report.model_copy(update={"title": TITLE})})
    results = [
        make_results(folder, name, accuracy=accuracy)
        for name, accuracy in (("low", 0.4), ("high", 0.9), ("middle", 0.7))
    ]
    return Report(folder, titled, make_dataset(CLASSES), results)


class Page(HTMLParser):
    """A parsed page: each element with its attributes, parent and text; nesting is checked."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {[element['tag'] for element in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        parent = self.open[-1] if self.open else None
        element = {"tag": tag, "attrs": dict(attrs), "children": [], "text": "", "parent": parent}
        if parent:
            parent["children"].append(element)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]

    def table(self, caption: str) -> list[list[str]]:
        """Return the cells of the table whose caption starts with this text."""
        found = [e for e in self.all("table") if e["children"][0]["text"].startswith(caption)]
        rows = [e for e in self.all("tr") if e["parent"]["parent"] is found[0]]
        return [[cell["text"].strip() for cell in row["children"]] for row in rows]


def queries(page: Page) -> list[tuple[int, dict[str, str]]]:
    """Return for every count in the page its value and the query of the explorer behind it."""
    buttons = [b["attrs"] for b in page.all("button") if "data-query" in b["attrs"]]
    return [(int(b["data-matches"]), json.loads(b["data-query"])) for b in buttons]
