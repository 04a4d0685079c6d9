"""The two forms of the report: one HTML page to explore, and Markdown for a review comment."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.params import Params
from cifarpipe.report.comparison import compare_pairs, lone_errors, shared_errors
from cifarpipe.report.explorer import Positions, pack, rank_images
from cifarpipe.report.public_labels import PublicLabels, image_flags, label_table
from cifarpipe.report.results import ModelResults, judge_explanations, verdict

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
MOST_CLASSES = 30  # of which confusions are shown as a matrix
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


def render_html(
    *,
    params: Params,
    dataset: Mapping[str, Any],
    results: list[ModelResults],
    board: pd.DataFrame,
    images: Callable[[Positions], NDArray[np.uint8]],
    labels: PublicLabels,
    pictures: Mapping[str, Path],
    provenance: Mapping[str, str],
) -> str:
    """Render the page: one file, nothing fetched, every text from outside escaped.

    As many images have a picture in it as fit `MOST_BYTES`; the page says how many.

    Args:
        params: Of the run.
        dataset: The dataset's card.
        results: Of each model.
        board: The leaderboard.
        images: Returns pictures `[n, S, S, 3]` of the test split by their positions.
        labels: What others found out about the test labels.
        pictures: `curves` and `dataset`.
        provenance: What stands in the footer.
    """
    environment = _environment()
    environment.filters["data_uri"] = data_uri
    by_name = {model.name: model for model in results}
    ordered = [by_name[name] for name in board.model]
    # Not escaped, since they are ours; the browser runs no script but the one of this digest.
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    right = {model.name: model.right for model in ordered}
    template = environment.get_template("index.html.j2")
    content = {
        **_shared(params, dataset, results, board, provenance),
        "results": ordered,
        "judged": {model.name: judge_explanations(model.gradcam) for model in ordered},
        "shared_errors": shared_errors(right).to_dict("records"),
        "lone_errors": lone_errors(right),
        "label_rows": label_table(ordered, labels, dataset["classes"]).to_dict("records"),
        "most_classes": MOST_CLASSES,
        "pictures": pictures,
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "script_digest": digest,
        "parameters": yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, width=100),
    }

    flags = image_flags(labels, ordered[0], dataset["classes"])

    def render(shown: Positions) -> str:
        data = pack(
            ordered,
            dataset["classes"],
            images,
            np.sort(shown),
            flags=flags,
            opacity=params.gradcam.opacity,
        )
        return template.render(**content, data=data, shown=len(shown))

    ranked = rank_images(ordered)[:MOST_PICTURES]
    page = render(ranked)
    if len(page.encode()) > MOST_BYTES:
        without = len(render(ranked[:0]).encode())
    while len(page.encode()) > MOST_BYTES and len(ranked):
        room = max(MOST_BYTES - without, 0) / (len(page.encode()) - without)
        ranked = ranked[: int(min(room, 0.99) * len(ranked))]
        page = render(ranked)
    return page


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
    return environment.get_template("summary.md.j2").render(
        **_shared(params, dataset, results, board, provenance),
        results={model.name: model for model in results},
        judged={model.name: judge_explanations(model.gradcam) for model in results},
    )


def _environment(*, keep_trailing_newline: bool = False) -> Environment:
    """Return what renders a template: all text escaped, a name that is missing an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )


def _shared(
    params: Params,
    dataset: Mapping[str, Any],
    results: list[ModelResults],
    board: pd.DataFrame,
    provenance: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "title": params.report.title,
        "verdict": verdict(board, {model.name: model.right for model in results}),
        "dataset": dataset,
        "board": board.to_dict("records"),
        "pairs": pairs_table(results, board).to_dict("records"),
        "provenance": provenance,
        "earlier": bool(earlier_curves(params, dataset["classes"])),
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
