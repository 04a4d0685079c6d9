"""Pictures of arrays and tables: samples, galleries, curves."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarpipe.figures.sheets import caption, lay_out, place, sheet, short

SAMPLES_PER_CLASS = 8
GALLERY_COLUMNS = 5
LARGE_TILE = 1.95  # side of a picture in a gallery, inches


def draw_samples(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
) -> Figure:
    """Show the first images of each class, a row per class.

    Args:
        images: `[N, H, W, 3]`.
        labels: `[N]`.
        classes: Names, by label.
    """
    side, names = 0.75, 1.4
    figure, axes = sheet(names + SAMPLES_PER_CLASS * (side + 0.04), len(classes) * (side + 0.04))
    for label, name in enumerate(classes):
        top = label * (side + 0.04)
        axes.text(names - 0.1, top + side / 2, short(name), ha="right", va="center")
        for column, i in enumerate(np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS]):
            place(axes, images[i], names + column * (side + 0.04), top, side)
    return figure


def draw_gallery(pictures: NDArray[np.uint8], rows: pd.DataFrame, title: str) -> Figure:
    """Show pictures in their original pixels, each with what it is and what it was taken for.

    Args:
        pictures: `[N, H, W, 3]`.
        rows: N rows of the predictions table, in the same order.
        title: Stands above.
    """
    columns = max(1, min(GALLERY_COLUMNS, len(rows)))
    figure, axes, places = lay_out(len(rows), columns, 1, LARGE_TILE, title)
    for picture, row, (x, y) in zip(pictures, rows.to_dict("records"), places, strict=True):
        place(axes, picture, x, y, LARGE_TILE)
        taken = f"{short(row['predicted'])} ({row['confidence']:.2f})"
        caption(axes, x, y, f"#{row['index']}  true: {short(row['true'])}\n→ predicted: {taken}")
    return figure


def draw_curves(curves: Mapping[str, pd.DataFrame], earlier: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy and loss, in training and validation, of all models over the epochs.

    Args:
        curves: A history per model.
        earlier: Per model the curve of an earlier run, drawn dashed in the model's colour; columns
            that it lacks are left out.
    """
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    colours = mpl.color_sequences["petroff10" if len(curves) <= 10 else "tab20"]
    columns = [("train_acc", "val_acc"), ("train_loss", "val_loss")]
    for axes, column in zip(panels.flat, [*columns[0], *columns[1]], strict=True):
        for number, (name, history) in enumerate(curves.items()):
            colour = colours[number % len(colours)]
            dot = "o" if len(history) == 1 else None
            axes.plot(history.epoch, history[column], color=colour, label=name, marker=dot)
            before = earlier.get(name)
            if before is not None and column in before:
                style = {"linestyle": "--", "alpha": 0.6, "linewidth": 1}
                axes.plot(before.epoch, before[column], color=colour, **style)
        axes.grid(alpha=0.3)
    panels[0, 0].set(title="training", ylabel="accuracy")
    panels[0, 1].set(title="validation")
    panels[1, 0].set(ylabel="loss", xlabel="epoch")
    panels[1, 1].set(xlabel="epoch")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    return figure
