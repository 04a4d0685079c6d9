"""Accuracy and loss over the epochs."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure


def draw_curves(curves: Mapping[str, pd.DataFrame], earlier: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw training and validation accuracy and loss of all models over the epochs.

    Args:
        curves: A history per model.
        earlier: For some models, the curve of an earlier run, drawn dashed in the model's colour;
            columns that it lacks are left out.
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
