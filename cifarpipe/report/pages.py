"""The two forms of the report: one HTML page to explore, and Markdown for a review comment."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.config.schema import Params
from cifarpipe.evaluation.calibration import MOST_SCALING
from cifarpipe.evaluation.diagnosis import answer_faults, training_faults
from cifarpipe.report.comparison import compare_pairs, lone_errors, shared_errors
from cifarpipe.report.explorer import Positions, most_pictures, pack, rank_images
from cifarpipe.report.public_labels import PublicLabels, image_flags, label_table
from cifarpipe.report.results import ModelResults, judge_explanations, verdict
from cifarpipe.report.templating import templates
from cifarpipe.results.maps import CLASS_AGNOSTIC

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
MOST_BYTES = 2_900_000  # of the page
MOST_PICTURES = 600  # in the page
MOST_CLASSES = 30  # of which confusions are shown as a matrix …
MOST_CELLS = 10_000  # … and in all of them
WEBP_QUALITY = 70
WEBP_WIDTH = 1100  # pixels, about what a page shows; the PNGs beside it are larger
TEMPLATES = Path(__file__).parent / "templates"


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


@dataclass(frozen=True)
class Study:
    """What both forms of the report tell of."""

    params: Params
    dataset: Mapping[str, Any]
    """The dataset's card."""
    results: list[ModelResults]
    """Of each model."""
    board: pd.DataFrame
    """The leaderboard."""
    provenance: Mapping[str, str]
    """What stands in the footer."""


def render_html(
    study: Study,
    *,
    images: Callable[[Positions], NDArray[np.uint8]],
    labels: PublicLabels,
    pictures: Mapping[str, Path],
) -> str:
    """Render the page: one file, nothing fetched, every text from outside escaped.

    As many images have a picture in it as fit `MOST_BYTES`; the page says how many. Of very many
    models or classes it is larger even without any.

    Args:
        study: All but what follows.
        images: Returns pictures `[n, S, S, 3]` of the test split by their positions.
        labels: What others found out about the test labels.
        pictures: `curves` and `dataset`.
    """
    environment = templates(TEMPLATES)
    environment.filters["data_uri"] = data_uri
    by_name = {model.name: model for model in study.results}
    ordered = [by_name[name] for name in study.board.model]
    classes = study.dataset["classes"]
    # Not escaped, since they are ours; the browser runs no script but the one of this digest.
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    right = {model.name: model.right for model in ordered}
    template = environment.get_template("index.html.j2")
    content = {
        **_shared(study),
        "results": ordered,
        "judged": {model.name: judge_explanations(model.gradcam) for model in ordered},
        "shared_errors": shared_errors(right).to_dict("records"),
        "lone_errors": lone_errors(right),
        "label_rows": label_table(ordered, labels, classes).to_dict("records"),
        "matrices": len(classes) <= MOST_CLASSES and len(classes) ** 2 * len(ordered) <= MOST_CELLS,
        "class_agnostic": CLASS_AGNOSTIC,
        "most_scaling": MOST_SCALING,
        "pictures": pictures,
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "script_digest": digest,
        "parameters": yaml.safe_dump(
            study.params.model_dump(mode="json"), sort_keys=False, width=100
        ),
    }

    flags = image_flags(labels, ordered[0], classes)
    opacity = study.params.gradcam.opacity

    def render(shown: Positions) -> str:
        data = pack(ordered, classes, images, np.sort(shown), flags=flags, opacity=opacity)
        return template.render(**content, data=data, shown=len(shown))

    ranked = rank_images(ordered)[: min(MOST_PICTURES, most_pictures(study.dataset["image_size"]))]
    page = render(ranked)
    if len(page.encode()) > MOST_BYTES:
        without = len(render(ranked[:0]).encode())
    while len(page.encode()) > MOST_BYTES and len(ranked):
        room = max(MOST_BYTES - without, 0) / (len(page.encode()) - without)
        ranked = ranked[: int(min(room, 0.99) * len(ranked))]
        page = render(ranked)
    return page


def render_markdown(study: Study) -> str:
    """Render the short form, fit for a review comment; pictures are links beside it."""
    environment = templates(TEMPLATES, keep_trailing_newline=True)
    return environment.get_template("summary.md.j2").render(
        **_shared(study),
        results={model.name: model for model in study.results},
        judged={model.name: judge_explanations(model.gradcam) for model in study.results},
    )


def _shared(study: Study) -> dict[str, Any]:
    right = {model.name: model.right for model in study.results}
    faults = {
        model.name: answer_faults(model.metrics, model.confusion)
        + training_faults(model.history, len(study.dataset["classes"]))
        for model in study.results
    }
    return {
        "title": study.params.report.title,
        "faults": {name: said for name, said in faults.items() if said},
        "verdict": verdict(study.board, right),
        "dataset": study.dataset,
        "board": study.board.to_dict("records"),
        "pairs": pairs_table(study.results, study.board).to_dict("records"),
        "provenance": study.provenance,
        "earlier": bool(earlier_curves(study.params, study.dataset["classes"])),
    }


def pairs_table(results: list[ModelResults], board: pd.DataFrame) -> pd.DataFrame:
    """Compare each two models on the test images, the better one first."""
    by_name = {model.name: model.predictions for model in results}
    predicted = {name: by_name[name].predicted.to_numpy(object) for name in board.model}
    return compare_pairs(predicted, results[0].predictions.true.to_numpy(object))


def data_uri(path: Path) -> str:
    """Return a picture as a data URI, as WebP: a figure takes a tenth of its PNG's bytes."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WEBP_WIDTH, 10 * WEBP_WIDTH), Image.Resampling.LANCZOS)
        small.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
