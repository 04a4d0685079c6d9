"""A review as a Markdown comment, with montages of images next to it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifarpipe.cli.review.changes import (
    ModelChange,
    PredictionChange,
    Unpaired,
    changed_values,
    metric_changes,
)
from cifarpipe.cli.review.snapshot import Snapshot
from cifarpipe.config.errors import UserError
from cifarpipe.report.templating import templates
from cifarpipe.results.maps import Explanations

TEMPLATES = Path(__file__).parent / "templates"
MAX_IMAGES = 10  # in a montage
OPACITY = 0.6  # of maps, if the parameters do not say
# Kinds of change, and the title of their montage.
KINDS = {
    "broken": "correct in {base}, wrong now, most confident first",
    "fixed": "wrong in {base}, correct now",
}
MAX_CHARACTERS = 60_000  # GitHub accepts 65,536 in a comment


def render_review(
    before: Snapshot,
    after: Snapshot,
    changes: Sequence[ModelChange],
    montages: Mapping[str, Sequence[tuple[str, str]]],
) -> str:
    """Render the comment.

    Args:
        before: The base.
        after: What is reviewed.
        changes: Of each model in both snapshots.
        montages: For each model, the title and file of each montage next to the comment.

    Returns:
        Markdown. Long tables are cut, and say so.
    """
    metrics = [
        (f"{change.name}.{metric}", *change_of_metric)
        for change in changes
        for metric, *change_of_metric in metric_changes(change.before, change.after)
    ]
    params = changed_values(before.params, after.params)
    content = {
        "before": before,
        "after": after,
        "changes": changes,
        "tested": sum(change.p is not None for change in changes),
        "added": [name for name in after.models if name not in before.models],
        "removed": [name for name in before.models if name not in after.models],
        "unpaired": {
            reason: [change.name for change in changes if change.predictions == reason]
            for reason in get_args(Unpaired)
        },
        "montages": montages,
    }
    template = templates(TEMPLATES, keep_trailing_newline=True).get_template("review.md.j2")
    most = max(len(metrics), len(params))
    while True:
        text = template.render(**content, metrics=metrics, params=params, most=most)
        if len(text) <= MAX_CHARACTERS or not most:
            return text
        most = most * 2 // 3


def draw_montages(
    changes: Sequence[ModelChange], before: Snapshot, after: Snapshot, folder: Path
) -> dict[str, list[tuple[str, str]]]:
    """Draw the test images that were fixed or broken, if the prepared data is available.

    Args:
        changes: Of each model.
        before: The base.
        after: What is reviewed.
        folder: Of the comment.

    Returns:
        For each model, the title of each montage and its file in the folder.
    """
    from cifarpipe.figures.explanations import draw_before_and_after
    from cifarpipe.figures.galleries import draw_gallery
    from cifarpipe.figures.layout import save_figure
    from cifarpipe.store.prepared import load_prepared

    for change in changes:  # remove those of an earlier review
        for kind in KINDS:
            _montage(folder, change.name, kind).unlink(missing_ok=True)
    try:
        prepared = load_prepared()
    except UserError as error:
        print(f"note: no images are drawn: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return {}
    drawn: dict[str, list[tuple[str, str]]] = {}
    for name, kind, rows in _changed_images(changes):
        shown = rows[:MAX_IMAGES]
        index = shown["index"].to_numpy()
        if (
            prepared.short_fingerprint != after.data
            or not np.isin(index, prepared.test.index).all()
        ):
            print(f"note: {prepared.folder} has other images than {after.name} was evaluated on, "
                  f"so none are drawn: run `dvc checkout`.", file=sys.stderr)  # fmt: skip
            return {}
        images = prepared.test.images[prepared.test.positions(index)]
        title = f"{name}: {KINDS[kind].format(base=before.name)}"
        file = _montage(folder, name, kind)
        sides = _sides(name, before, after, index)
        if sides is None:
            figure = draw_gallery(images, shown, title)
        else:
            opacity = after.params.get("gradcam.opacity", OPACITY)
            figure = draw_before_and_after(images, *sides, opacity=opacity, title=title)
        save_figure(figure, file)
        drawn.setdefault(name, []).append((f"{len(shown)} of {len(rows)} {kind}", file.name))
    return drawn


def _sides(
    name: str, before: Snapshot, after: Snapshot, index: NDArray[np.int64]
) -> list[tuple[str, pd.DataFrame, Explanations]] | None:
    """Return label, rows and maps of some images of both snapshots; None if maps are missing."""
    sides = []
    for snapshot in (before, after):
        model = snapshot.models[name]
        maps = model.read_maps()
        if maps is None or model.predictions is None:
            return None
        rows = model.predictions.set_index("index", drop=False).loc[index]
        sides.append((snapshot.name, rows, maps.of(index)))
    return sides


def _changed_images(changes: Sequence[ModelChange]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield model, kind of change and rows, if there are any."""
    for change in changes:
        if isinstance(change.predictions, PredictionChange):
            for kind in KINDS:
                if len(rows := getattr(change.predictions, kind)):
                    yield change.name, kind, rows


def _montage(folder: Path, model: str, kind: str) -> Path:
    return folder / f"{model}_{kind}.png"
