"""The results of all stages, per model and combined."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from cifarpipe.config.schema import Params
from cifarpipe.evaluation.diagnosis import learning_warnings
from cifarpipe.report.baseline_curves import read_baselines
from cifarpipe.report.cifar10 import CIFAR10_CLASSES
from cifarpipe.report.comparison import compare_pairs
from cifarpipe.report.groups import Group, cluster_groups, image_groups, weak_groups
from cifarpipe.report.label_candidates import label_candidates
from cifarpipe.report.leaderboard import leaderboard
from cifarpipe.report.near_duplicates import near_duplicates
from cifarpipe.results.digests import require_digests
from cifarpipe.results.maps import Explanations, load_explanations
from cifarpipe.results.metrics import Metrics, load_metrics
from cifarpipe.results.neighbours import Neighbours, load_neighbours
from cifarpipe.results.predictions import logits_of, read_predictions
from cifarpipe.results.tables import read_table
from cifarpipe.store.paths import artifact, model_report
from cifarpipe.store.prepared import Prepared, Split

TOP_CONFUSIONS = 5


@dataclass(frozen=True)
class ModelResults:
    """Everything that the stages found about one model, as they wrote it."""

    name: str
    arch: str
    trained_on: str
    """Device and precision."""
    metrics: Metrics
    """Of the predictions."""
    quality: Metrics
    """Of the explanations."""
    history: pd.DataFrame
    layers: pd.DataFrame
    per_class: pd.DataFrame
    calibration: pd.DataFrame
    slices: pd.DataFrame
    confusion: pd.DataFrame
    """Columns `true`, `predicted`, `images`."""
    misclassified: pd.DataFrame
    correct: pd.DataFrame
    predictions: pd.DataFrame
    """A row per test image."""
    explanations: Explanations
    """In the order of `predictions`."""
    neighbours: Neighbours
    """In the order of `predictions` and of the train split."""

    def __post_init__(self) -> None:
        """Check that all tables are about the same images."""
        wrong = self.confusion.images[self.confusion.true != self.confusion.predicted]
        in_table = (self.predictions.true != self.predictions.predicted).sum()
        assert self.metrics["errors"].value == wrong.sum() == in_table, (
            f"{self.name}: metrics, confusions and predictions have different numbers of errors"
        )
        assert len(self.explanations.index) == self.images, f"{self.name}: maps are missing"
        assert len(self.neighbours.nearest) == self.images, f"{self.name}: neighbours are missing"

    @property
    def images(self) -> int:
        """Number of test images."""
        return int(self.confusion.images.sum())

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """`[N]` whether each prediction is correct."""
        return (self.predictions.true == self.predictions.predicted).to_numpy()

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """`[N, classes]` of the predictions."""
        return np.asarray(softmax(logits_of(self.predictions), axis=1))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return int(self.layers.parameters.sum())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass of one image."""
        return int(self.layers.macs.sum())

    def matrix(self, classes: list[str]) -> NDArray[np.int64]:
        """Return the confusion matrix `[classes, classes]`, rows true, columns predicted."""
        return self.confusion.images.to_numpy().reshape(len(classes), len(classes))

    def top_confusions(self) -> list[dict[Hashable, Any]]:
        """Return the most frequent confusions: `true`, `predicted`, `images`."""
        wrong = self.confusion[self.confusion.true != self.confusion.predicted]
        wrong = wrong[wrong.images > 0].sort_values("images", ascending=False, kind="stable")
        return wrong[:TOP_CONFUSIONS].to_dict("records")


@dataclass(frozen=True)
class Study:
    """The content of the report."""

    params: Params
    dataset: Mapping[str, Any]
    """The dataset card."""
    train: Split
    test: Split
    results: list[ModelResults]
    provenance: Mapping[str, str]
    """Revision and versions, for the footer."""

    @cached_property
    def board(self) -> pd.DataFrame:
        """The leaderboard."""
        return leaderboard(self.results)

    @cached_property
    def warnings(self) -> dict[str, list[str]]:
        """What suggests that networks have not learned, of those of which anything does."""
        classes = len(self.dataset["classes"])
        found = {
            model.name: learning_warnings(
                model.confusion, float(model.history.train_loss.iloc[-1]), classes
            )
            for model in self.results
        }
        return {name: texts for name, texts in found.items() if texts}

    @cached_property
    def label_candidates(self) -> pd.DataFrame:
        """Candidates for label errors: test images by all models, training images by neighbours.

        An image has no vote about itself. But its label was trained on: once a network has fitted
        a wrong label, the image lies among those of that class, and its neighbours confirm it.
        """
        predicted = np.mean([model.probabilities for model in self.results], axis=0)
        votes = np.sum([model.neighbours.votes for model in self.results], axis=0, dtype=np.float64)
        voted = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
        splits = [("test", self.test, predicted), ("train", self.train, voted)]
        return label_candidates(splits, self.dataset["classes"])

    @cached_property
    def groups(self) -> dict[str, list[Group]]:
        """The groups of test images that are looked at, for each model."""
        looks = image_groups(self.test.images, self.test.labels, self.dataset["classes"])
        found = {}
        for model in self.results:
            clusters, centres = model.neighbours.clusters, model.neighbours.centres
            index = self.test.index[centres].tolist()
            found[model.name] = looks + cluster_groups(clusters, index, model.name)
        return found

    @cached_property
    def weak_groups(self) -> pd.DataFrame:
        """Groups on which a model does worse, a row per model and group."""
        tables = [
            weak_groups(self.groups[model.name], model.is_correct).assign(model=model.name)
            for model in self.results
        ]
        table = pd.concat(tables, ignore_index=True)
        return table[["model", *table.columns.drop("model")]]

    @cached_property
    def near_duplicates(self) -> pd.DataFrame:
        """Test images that are almost a training image."""
        return near_duplicates(self.test, self.train, [model.neighbours for model in self.results])

    @cached_property
    def baselines(self) -> dict[str, pd.DataFrame]:
        """The curves of `report.baselines`, if the classes are CIFAR-10's.

        Raises:
            UserError: A file can't be used.
        """
        if self.dataset["classes"] != CIFAR10_CLASSES:
            return {}
        return read_baselines(self.params.report.baselines or {})

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Comparisons of every two models on the test images, the better one first."""
        by_name = {model.name: model.predictions for model in self.results}
        predicted = {name: by_name[name].predicted.to_numpy(object) for name in self.board.model}
        return compare_pairs(predicted, self.results[0].predictions.true.to_numpy(object))


def read_results(name: str, arch: str, data: Prepared) -> ModelResults:
    """Read what the stages wrote about one model.

    Args:
        name: Of the model.
        arch: Its architecture.
        data: The prepared data.

    Raises:
        UserError: A file is missing, damaged, or of another run than the reports.
    """

    def table(file: str) -> pd.DataFrame:
        return pd.read_csv(model_report(name, file), keep_default_na=False, na_values=[""])

    metrics = load_metrics(model_report(name, "metrics.csv"))
    quality = load_metrics(model_report(name, "gradcam.csv"))
    predictions = read_predictions(artifact(name, "predictions.csv"), data)
    explanations = load_explanations(artifact(name, "cams.npz"))
    neighbours = load_neighbours(artifact(name, "neighbours.npz"))
    evaluated = require_digests(name, "evaluated.csv", "predictions.csv", facts=["trained_on"])
    require_digests(name, "explained.csv", "cams.npz", "neighbours.npz")
    return ModelResults(
        name=name,
        arch=arch,
        trained_on=evaluated["trained_on"],
        metrics=metrics,
        quality=quality,
        history=table("history.csv"),
        layers=table("layers.csv").fillna(""),
        per_class=read_table(model_report(name, "classes.csv")),
        calibration=table("calibration.csv"),
        slices=table("slices.csv"),
        confusion=read_table(model_report(name, "confusion.csv")),
        misclassified=read_table(model_report(name, "misclassified.csv")),
        correct=read_table(model_report(name, "correct.csv")),
        predictions=predictions,
        explanations=explanations,
        neighbours=neighbours,
    )


def curves_table(results: list[ModelResults]) -> pd.DataFrame:
    """Return the histories of all models in long form, for `dvc plots`.

    Columns `model`, `epoch`, `curve` (such as `validation accuracy`) and `value`.
    """
    names = {
        "train_acc": "training accuracy",
        "val_acc": "validation accuracy",
        "train_loss": "training loss",
        "val_loss": "validation loss",
    }
    tables = [
        model.history.rename(columns=names)
        .melt("epoch", list(names.values()), "curve", "value")
        .assign(model=model.name)
        for model in results
    ]
    return pd.concat(tables, ignore_index=True)[["model", "epoch", "curve", "value"]]
