"""Accuracy and loss over the epochs."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure


def draw_curves(
    curves: Mapping[str, pd.DataFrame], baselines: Mapping[str, pd.DataFrame]
) -> Figure:
    """Draw training and validation accuracy and loss of all models over the epochs.

    Without validation images and baselines, there are no panels for validation.

    Args:
        curves: A history per model.
        baselines: For some models, the curve of a baseline run, drawn dashed in the model's colour;
            columns that it lacks are left out.
    """
    validated = bool(baselines) or any(history.val_acc.notna().any() for history in curves.values())
    sides = [("train", "training"), *([("val", "validation")] if validated else [])]
    figure = Figure(figsize=(10.5 if validated else 6, 6.4), layout="constrained")
    panels = figure.subplots(2, len(sides), sharex=True, sharey="row", squeeze=False)
    colours = mpl.color_sequences["petroff10" if len(curves) <= 10 else "tab20"]
    columns = [f"{split}_{what}" for what in ("acc", "loss") for split, _ in sides]
    for axes, column in zip(panels.flat, columns, strict=True):
        for number, (name, history) in enumerate(curves.items()):
            colour = colours[number % len(colours)]
            dot = "o" if len(history) == 1 else None
            axes.plot(history.epoch, history[column], color=colour, label=name, marker=dot)
            before = baselines.get(name)
            if before is not None and column in before:
                style = {"linestyle": "--", "alpha": 0.6, "linewidth": 1}
                axes.plot(before.epoch, before[column], color=colour, **style)
        axes.grid(alpha=0.3)
    for (_, title), top, bottom in zip(sides, *panels, strict=True):
        top.set(title=title)
        bottom.set(xlabel="epoch")
    panels[0, 0].set(ylabel="accuracy")
    panels[1, 0].set(ylabel="loss")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    return figure
