"""A review as a Markdown comment, with montages beside it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from cifarpipe.cli.review.changes import AnswerChange, ModelChange, Unpaired, changed_values, shifts
from cifarpipe.cli.review.snapshot import Snapshot
from cifarpipe.config.errors import UserError
from cifarpipe.report.templating import templates

TEMPLATES = Path(__file__).parent / "templates"
MOST_PICTURES = 10  # in a montage
# What became of images, and what their montage says.
SIDES = {
    "broken": "right in {base}, wrong now, the surest first",
    "fixed": "wrong in {base}, as shown, and right now",
}
MOST_CHARACTERS = 60_000  # GitHub takes 65,536 in a comment


def render_review(
    before: Snapshot,
    after: Snapshot,
    changes: Sequence[ModelChange],
    pictures: Mapping[str, Sequence[tuple[str, str]]],
) -> str:
    """Render the comment.

    Args:
        before: The base.
        after: What is reviewed.
        changes: Of each model that both hold.
        pictures: By model, what each montage beside the comment shows, and its file.

    Returns:
        Markdown. Of very many changes it leaves the tail out, and says so.
    """
    metrics = [
        (f"{change.name}.{metric}", *shift)
        for change in changes
        for metric, *shift in shifts(change.before, change.after)
    ]
    params = changed_values(before.params, after.params)
    content = {
        "before": before,
        "after": after,
        "changes": changes,
        "added": [name for name in after.models if name not in before.models],
        "removed": [name for name in before.models if name not in after.models],
        "unpaired": {
            why: [change.name for change in changes if change.answers == why]
            for why in get_args(Unpaired)
        },
        "pictures": pictures,
    }
    template = templates(TEMPLATES, keep_trailing_newline=True).get_template("review.md.j2")
    most = max(len(metrics), len(params))
    while True:
        text = template.render(**content, metrics=metrics, params=params, most=most)
        if len(text) <= MOST_CHARACTERS or not most:
            return text
        most = most * 2 // 3


def draw_montages(
    changes: Sequence[ModelChange], before: Snapshot, after: Snapshot, folder: Path
) -> dict[str, list[tuple[str, str]]]:
    """Draw the test images that changed sides, where the prepared data is at hand.

    Args:
        changes: Of each model.
        before: The base.
        after: What is reviewed.
        folder: Of the comment.

    Returns:
        By model, what each montage shows, and its file in the folder.
    """
    from cifarpipe.figures.galleries import draw_gallery
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.store.prepared import load_prepared

    for change in changes:  # those of an earlier review
        for side in SIDES:
            _montage(folder, change.name, side).unlink(missing_ok=True)
    try:
        prepared = load_prepared()
    except UserError as error:
        print(f"note: no images are shown: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return {}
    drawn: dict[str, list[tuple[str, str]]] = {}
    for name, side, rows in _changed_sides(changes):
        some = rows[:MOST_PICTURES]
        index = some["index"].to_numpy()
        if (
            prepared.short_fingerprint != after.data
            or not np.isin(index, prepared.test.index).all()
        ):
            print(f"note: {prepared.folder} holds other images than {after.name} was evaluated on, "
                  f"so none is shown: run `dvc checkout`.", file=sys.stderr)  # fmt: skip
            return {}
        pictures = prepared.test.images[prepared.test.positions(index)]
        title = f"{name}: {SIDES[side].format(base=before.name)}"
        file = _montage(folder, name, side)
        save_figure(draw_gallery(pictures, some, title), file)
        drawn.setdefault(name, []).append((f"{len(some)} of the {len(rows)} {side}", file.name))
    return drawn


def _changed_sides(changes: Sequence[ModelChange]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield model, side and rows, where there are any."""
    for change in changes:
        if isinstance(change.answers, AnswerChange):
            for side in SIDES:
                if len(rows := getattr(change.answers, side)):
                    yield change.name, side, rows


def _montage(folder: Path, model: str, side: str) -> Path:
    return folder / f"{model}_{side}.png"
