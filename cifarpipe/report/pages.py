"""The report in two forms: an HTML page to explore, and a short summary in Markdown."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup
from PIL import Image

from cifarpipe.evaluation.calibration import MAX_TEMPERATURE
from cifarpipe.report.cifar10 import CIFAR10_CLASSES
from cifarpipe.report.comparison import lone_errors, shared_errors
from cifarpipe.report.explorer import LOSSLESS_UP_TO, pack, rank_images
from cifarpipe.report.groups import SMALLEST
from cifarpipe.report.leaderboard import shown_columns
from cifarpipe.report.near_duplicates import CORRELATION
from cifarpipe.report.public_labels import (
    PublicLabels,
    image_flags,
    label_table,
)
from cifarpipe.report.sentences import judge_explanations, verdict
from cifarpipe.report.sprites import Positions, max_images
from cifarpipe.report.study import ModelResults, Study
from cifarpipe.report.templating import templates
from cifarpipe.report.training_images import TrainingImages, choose_training_images
from cifarpipe.report.worth_checking import WEAK_GROUPS, WORTH_CHECKING, own_flags, worth_checking
from cifarpipe.results.maps import MAX_CORRELATION
from cifarpipe.results.significance import LEVEL
from cifarpipe.store.outputs import write_text

MAX_BYTES = 2_900_000  # of the page
MAX_IMAGES = 600  # in the page
MAX_CLASSES = 30  # whose confusions are shown as a matrix …
MAX_CELLS = 10_000  # … and cells of all matrices
WEBP_QUALITY = 70
WEBP_WIDTH = 1100  # pixels, about the width of the page; the PNG files are larger
TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = ("data", "drawing", "tiles", "explorer", "image", "address", "tables", "start")
GALLERY = {"errors": 20, "correct": 7}  # images at most, in a model's section


def write_pages(study: Study, labels: PublicLabels, folder: Path) -> Path:
    """Write `index.html` and `summary.md`; return the path of the former.

    Args:
        study: The content.
        labels: Published findings about the test labels.
        folder: Holds `curves.png` and `dataset.png`, too.
    """
    write_text(folder / "summary.md", render_markdown(study))
    pictures = {name: folder / f"{name}.png" for name in ("curves", "dataset")}
    page = folder / "index.html"
    write_text(page, render_html(study, labels=labels, pictures=pictures))
    return page


def page_warnings(page: Path, labels: PublicLabels) -> list[str]:
    """Return what is wrong with a page: label files are missing, or it exceeds `MAX_BYTES`."""
    size = page.stat().st_size
    too_large = (
        f"{page} has {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.1f} MB: with so many models "
        f"and classes, the tables alone fill it"
    )
    return [*labels.missing, *([too_large] if size > MAX_BYTES else [])]


def render_html(study: Study, *, labels: PublicLabels, pictures: Mapping[str, Path]) -> str:
    """Render the page: one file without external requests, in which every text is escaped.

    It contains as many images as fit into `MAX_BYTES`, and says how many. With very many models or
    classes it is larger even without images.

    Args:
        study: The content.
        labels: Published findings about the test labels.
        pictures: Files of `curves` and `dataset`.
    """
    environment = templates(TEMPLATES)
    environment.filters["data_uri"] = data_uri
    template = environment.get_template("index.html.j2")
    by_name = {model.name: model for model in study.results}
    ordered = [by_name[name] for name in study.board.model]
    content = _page_content(study, ordered, labels) | {"pictures": pictures}
    classes = study.dataset["classes"]
    flags = image_flags(labels, ordered[0], classes) | own_flags(study)
    opacity = study.params.gradcam.opacity
    ranked, training = _choose_images(study, ordered)

    def render(shown: Positions) -> str:
        data = pack(
            ordered, classes, study.test.images, np.sort(shown), training,
            flags=flags, opacity=opacity,
        )  # fmt: skip
        return template.render(**content, data=data, shown=len(shown))

    return fit(render, ranked, MAX_BYTES)


def _page_content(
    study: Study, ordered: list[ModelResults], labels: PublicLabels
) -> dict[str, Any]:
    """Return what the page shows besides its explorer.

    Args:
        study: The content.
        ordered: Its models, the most accurate first.
        labels: Published findings about the test labels.
    """
    classes = study.dataset["classes"]
    script = page_script()  # our own, so not escaped; the browser runs no script without its digest
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    is_correct = {model.name: model.is_correct for model in ordered}
    return {
        **_shared(study),
        "results": ordered,
        "judged": {model.name: judge_explanations(model.quality) for model in ordered},
        "shared_errors": shared_errors(is_correct).to_dict("records"),
        "lone_errors": lone_errors(is_correct),
        "missing_labels": labels.missing,
        "label_rows": label_table(ordered, labels, classes).to_dict("records"),
        "matrices": len(classes) <= MAX_CLASSES and len(classes) ** 2 * len(ordered) <= MAX_CELLS,
        "max_temperature": MAX_TEMPERATURE,
        "gallery": GALLERY,
        "worth_checking": worth_checking(study),
        "weak_groups": {
            name: table[:WEAK_GROUPS].to_dict("records")
            for name, table in study.weak_groups.groupby("model")
        },
        "smallest_group": SMALLEST,
        "cifar10": classes == CIFAR10_CLASSES,
        "max_correlation": MAX_CORRELATION,
        "correlation": CORRELATION,
        "class_agnostic": {
            model.explanations.method for model in ordered if not model.explanations.class_specific
        },
        "lossless_up_to": LOSSLESS_UP_TO,
        "without_features": [
            model.name for model in ordered if not model.neighbours.nearest.shape[1]
        ],
        "style": Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "script_digest": digest,
        "parameters": yaml.safe_dump(study.params.given(), sort_keys=False, width=100),
    }


def _choose_images(study: Study, ordered: list[ModelResults]) -> tuple[Positions, TrainingImages]:
    """Return the test images for the explorer, the most important first, and training images.

    Args:
        study: The content.
        ordered: Its models, the most accurate first.
    """
    size = study.dataset["image_size"]
    candidates, duplicates = study.label_candidates, study.near_duplicates[:WORTH_CHECKING]
    test, train = (candidates[candidates.split == name] for name in ("test", "train"))
    first = pd.concat([test.position[:WORTH_CHECKING], duplicates.position])
    ranked = rank_images(ordered, first.to_numpy(np.int64))[: min(MAX_IMAGES, max_images(size))]
    first = pd.concat([train.position[:WORTH_CHECKING], duplicates.train_position])
    chosen = choose_training_images(ordered, ranked, first.to_numpy(np.int64), size)
    return ranked, TrainingImages(study.train, chosen)


def fit(render: Callable[[Positions], str], ranked: Positions, most: int) -> str:
    """Render a page with as many of the ranked images as fit, the first ones.

    Args:
        render: Returns the page with some images.
        ranked: `[N]` the most important first.
        most: Bytes of the page. Without any image it may still have more.
    """
    page = render(ranked)
    if len(page.encode()) > most:
        without = len(render(ranked[:0]).encode())
    while len(page.encode()) > most and len(ranked):
        room = max(most - without, 0) / (len(page.encode()) - without)
        ranked = ranked[: int(0.98 * room * len(ranked))]
        page = render(ranked)
    return page


def page_script() -> str:
    """Return the page's script: its parts share a scope of their own."""
    parts = [(TEMPLATES / f"script/{name}.js").read_text(encoding="utf-8") for name in SCRIPT]
    return "\n".join(['"use strict";', "(() => {", *parts, "})();"])


def render_markdown(study: Study) -> str:
    """Render the summary, fit for a review comment; it links to the figures."""
    environment = templates(TEMPLATES, keep_trailing_newline=True)
    return environment.get_template("summary.md.j2").render(
        **_shared(study),
        results={model.name: model for model in study.results},
        judged={model.name: judge_explanations(model.quality) for model in study.results},
    )


def _shared(study: Study) -> dict[str, Any]:
    """Return what both forms show."""
    return {
        "title": study.params.report.title,
        "warnings": study.warnings,
        "verdict": verdict(study.board, study.pairs),
        "dataset": study.dataset,
        "board": study.board.to_dict("records"),
        "columns": shown_columns(study.board, study.dataset["per_class"]["test"]),
        "pairs": study.pairs.to_dict("records"),
        "provenance": study.provenance,
        "baselines": bool(study.baselines),
        "level": LEVEL,
    }


def data_uri(path: Path) -> str:
    """Return an image file as a WebP data URI: a figure has a tenth of its PNG's bytes."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((WEBP_WIDTH, 10 * WEBP_WIDTH), Image.Resampling.LANCZOS)
        small.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
