"""The summary report: what all models got right and wrong, in one page and one Markdown file.

Sees tables, pictures and parameters, never a model.
"""

import base64
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.params import Params

CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]  # in the order of its labels
TOP_CONFUSIONS = 5
WEBP_QUALITY = 70
WEBP_WIDTH = 1100  # pixels, about what a page shows; the PNGs beside it are larger


@dataclass(frozen=True)
class ModelResults:
    """All that the stages found out about one model, as they wrote it."""

    name: str
    arch: str
    folder: Path
    """Where its pictures lie."""
    metrics: dict[str, Any]
    cost: dict[str, Any]
    gradcam: dict[str, Any]
    history: pd.DataFrame
    layers: pd.DataFrame
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    """Columns `true`, `predicted`, `images`."""
    misclassified: pd.DataFrame
    correct: pd.DataFrame

    @property
    def images(self) -> int:
        """How many test images there are."""
        return int(self.confusion.images.sum())

    @property
    def seconds(self) -> float:
        """How long the training took, validation included, start-up left out."""
        return float(self.history.seconds.sum())

    def matrix(self, classes: list[str]) -> NDArray[np.int64]:
        """Return the confusion counts `[classes, classes]`, rows true, columns predicted."""
        return self.confusion.images.to_numpy().reshape(len(classes), len(classes))

    def top_confusions(self) -> list[dict[Hashable, Any]]:
        """Return the most frequent kinds of error: `true`, `predicted`, `images`."""
        wrong = self.confusion[self.confusion.true != self.confusion.predicted]
        wrong = wrong[wrong.images > 0].sort_values("images", ascending=False, kind="stable")
        return wrong[:TOP_CONFUSIONS].to_dict("records")


def leaderboard(results: list[ModelResults], train_images: int) -> pd.DataFrame:
    """Return a row per model, the most accurate first.

    Args:
        results: Of each model.
        train_images: In one epoch.
    """
    rows = []
    for model in results:
        metrics = model.metrics
        assert metrics["errors"] == sum(
            model.confusion.images[model.confusion.true != model.confusion.predicted]
        ), f"{model.name}: errors are not what is off the diagonal"
        rows.append(
            {
                "model": model.name,
                **{key: metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high")},
                "errors": metrics["errors"],
                "images": model.images,
                **{key: metrics[key] for key in ("loss", "top2", "macro_f1", "ece", "brier")},
                "val_accuracy": metrics["val_accuracy"],
                "kept_epoch": metrics["kept_epoch"],
                "epochs": len(model.history),
                "parameters": model.cost["parameters"],
                "macs": model.cost["macs"],
                "train_seconds": round(model.seconds, 1),
                "train_images_per_second": round(
                    train_images * len(model.history) / max(model.seconds, 1e-9)
                ),
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("accuracy", ascending=False, kind="stable", ignore_index=True)


def verdict(board: pd.DataFrame) -> str:
    """Say in a sentence which model is best, or that the first ones can't be told apart."""
    best = board.iloc[0]
    figure = (
        f"{best.accuracy:.2%} of {best.images:,} test images right "
        f"(95% interval {best.accuracy_low:.2%} to {best.accuracy_high:.2%})"
    )
    tied = board.model[1:][board.accuracy_high[1:] >= best.accuracy_low].tolist()
    if tied:
        return f"{best.model} has {figure}; {' and '.join(tied)} within its interval: a tie."
    return f"{best.model} leads with {figure}."


def earlier_curves(params: Params, classes: list[str]) -> dict[str, pd.DataFrame]:
    """Return the earlier runs' curves with our columns' names, if the data is CIFAR-10's.

    Their accuracies were read on the test images after every epoch, so they stand where ours have
    those of the validation images.
    """
    if classes != CIFAR10_CLASSES:
        return {}
    curves = {}
    for name, path in params.report.baselines.items():
        table = pd.read_csv(path).rename(columns={"test_acc": "val_acc", "test_loss": "val_loss"})
        # Some count epochs from 0.
        curves[name] = table.assign(epoch=table.epoch + (1 if table.epoch.min() == 0 else 0))
    return curves


def render_html(
    *,
    params: Params,
    dataset: Mapping[str, Any],
    results: list[ModelResults],
    board: pd.DataFrame,
    pictures: Mapping[str, Path],
    provenance: Mapping[str, str],
) -> str:
    """Render the page: one file, nothing fetched, every text from outside escaped.

    Args:
        params: Of the run.
        dataset: The dataset's card.
        results: Of each model.
        board: The leaderboard.
        pictures: `curves` and `dataset`.
        provenance: What stands in the footer.
    """
    environment = _environment()
    environment.filters["data_uri"] = data_uri
    by_name = {model.name: model for model in results}
    return environment.get_template("report.html.j2").render(
        **_shared(params, dataset, board, provenance),
        results=[by_name[name] for name in board.model],
        pictures=pictures,
        parameters=yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, width=100),
    )


def render_markdown(
    *,
    params: Params,
    dataset: Mapping[str, Any],
    results: list[ModelResults],
    board: pd.DataFrame,
    provenance: Mapping[str, str],
) -> str:
    """Render the short form, fit for a review comment; pictures are links beside it."""
    environment = _environment(keep_trailing_newline=True)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template("report.md.j2").render(
        **_shared(params, dataset, board, provenance),
        results={model.name: model for model in results},
    )


def _environment(*, keep_trailing_newline: bool = False) -> Environment:
    """Return what renders a template: all text escaped, a name that is missing an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )


def _shared(
    params: Params, dataset: Mapping[str, Any], board: pd.DataFrame, provenance: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "title": params.report.title,
        "verdict": verdict(board),
        "dataset": dataset,
        "board": board.to_dict("records"),
        "provenance": provenance,
        "earlier": bool(earlier_curves(params, dataset["classes"])),
    }


def data_uri(path: Path) -> str:
    """Return a picture as a data URI, as WebP: a gallery takes a tenth of its PNG's bytes."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WEBP_WIDTH, 10 * WEBP_WIDTH), Image.Resampling.LANCZOS)
        small.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
