"""Training curves: a line per model and per baseline."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cifarpipe.figures.curves import draw_curves
from tests.support.figure_inputs import assert_equal_bytes, decode


def make_history(epochs: int = 3) -> pd.DataFrame:
    rising = np.linspace(0.1, 0.9, epochs)
    return pd.DataFrame(
        {
            "epoch": np.arange(1, epochs + 1),
            "train_acc": rising,
            "val_acc": rising / 2,
            "train_loss": 2 - rising,
            "val_loss": 3 - rising,
        }
    )


def curves() -> Figure:
    baseline = pd.DataFrame({"epoch": [1, 2], "train_acc": [0.1, 0.2], "val_acc": [0.3, 0.4]})
    return draw_curves({"vit": make_history(), "cnn": make_history(5)}, {"cnn": baseline})


def test_equal_curves_give_equal_bytes(tmp_path: Path) -> None:
    assert_equal_bytes(curves, tmp_path)


def test_curves_show_models_and_baseline_runs() -> None:
    panels = curves().axes
    assert [len(panel.lines) for panel in panels] == [3, 3, 2, 2]  # no losses of the baseline run
    columns = ["train_acc", "val_acc", "train_loss", "val_loss"]
    for panel, column in zip(panels, columns, strict=True):
        assert panel.lines[0].get_ydata().tolist() == make_history()[column].tolist()
    vit, cnn, baseline = panels[1].lines
    assert cnn.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert baseline.get_ydata().tolist() == [0.3, 0.4]
    assert baseline.get_linestyle() == "--"
    assert cnn.get_linestyle() == "-"
    assert baseline.get_color() == cnn.get_color() != vit.get_color()
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["vit", "cnn"]


def test_without_validation_only_training_is_drawn() -> None:
    history = make_history().assign(val_acc=np.nan, val_loss=np.nan)
    panels = draw_curves({"vit": history}, {}).axes
    assert [panel.get_title() for panel in panels] == ["training", ""]
    for panel, column in zip(panels, ("train_acc", "train_loss"), strict=True):
        assert panel.lines[0].get_ydata().tolist() == history[column].tolist()
    baseline = {"vit": make_history()}  # measured on test images: shown under validation
    assert len(draw_curves({"vit": history}, baseline).axes) == 4


def test_single_epoch_is_a_dot() -> None:
    history = make_history()
    panel = draw_curves({"short": history[:1], "long": history}, {}).axes[0]
    assert [line.get_marker() for line in panel.lines] == ["o", "None"]


def test_many_models_have_distinct_colours() -> None:
    panel = draw_curves({f"m{i}": make_history() for i in range(15)}, {}).axes[0]
    assert len({line.get_color() for line in panel.lines}) == 15


def test_history_without_validation_is_drawn(tmp_path: Path) -> None:
    history = make_history().assign(val_acc=np.nan, val_loss=np.nan)
    pixels = decode(draw_curves({"vit": history}, {}), tmp_path)
    assert pixels.min() < pixels.max()
