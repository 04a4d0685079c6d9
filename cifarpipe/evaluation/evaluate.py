"""Evaluate a network on the test split: predictions, metrics, and tables of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from cifarpipe.config.schema import Evaluate
from cifarpipe.evaluation.calibration import fit_temperature, reliability_table
from cifarpipe.evaluation.metrics import (
    class_table,
    compute_metrics,
    confusion_matrix,
    confusion_table,
    softmax,
    tta_accuracy,
)
from cifarpipe.evaluation.slices import image_properties, slice_table
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.results.metrics import Metric, Metrics
from cifarpipe.results.predictions import predictions_table
from cifarpipe.store.prepared import Prepared, Split


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on the test split."""

    predictions: pd.DataFrame
    """A row per test image."""
    metrics: Metrics
    confusion: pd.DataFrame
    """Columns `true`, `predicted`, `images`."""
    per_class: pd.DataFrame
    """A row per class."""
    calibration: pd.DataFrame
    """A row per bin of confidence."""
    slices: pd.DataFrame
    """A row per quarter of each image property."""


def evaluate(model: nn.Module, origin: Origin, data: Prepared, options: Evaluate) -> Evaluation:
    """Evaluate a network on the test split.

    The temperature is fitted on the validation split, which training has used, too: for the plateau
    schedule and the choice of the epoch.

    Args:
        model: In evaluation mode.
        origin: Of its weights.
        data: The prepared images.
        options: Section `evaluate` of params.yaml.
    """
    device = next(model.parameters()).device
    mean, std = origin.normalization(device)

    def logits_of(split: Split, label: str, *, mirrored: bool = False) -> NDArray[np.float32]:
        logits = compute_logits(
            model,
            ImageStore(split.images, device),
            mean=mean,
            std=std,
            batch_size=options.batch_size,
            mirrored=mirrored,
            progress=f"{origin.name} on {label}",
        )
        return logits.cpu().numpy()

    val_logits = logits_of(data.val, "validation")
    temperature = fit_temperature(val_logits, np.asarray(data.val.labels))
    logits, labels = logits_of(data.test, "test"), np.asarray(data.test.labels)
    bins = options.calibration_bins
    metrics = compute_metrics(logits, labels, calibration_bins=bins, temperature=temperature)
    if options.tta == "flip":
        mirrored = logits_of(data.test, "test, mirrored", mirrored=True)
        metrics["tta_accuracy"] = tta_accuracy(logits, mirrored, labels=labels)
    if origin.val_accuracy is not None:
        metrics["val_accuracy"] = Metric(round(origin.val_accuracy, 4))
    metrics["kept_epoch"] = Metric(origin.kept_epoch)
    predictions = predictions_table(logits, labels, data.test.index, data.classes, data.test.files)
    predicted = logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(data.classes))
    return Evaluation(
        predictions=predictions,
        metrics=metrics,
        confusion=confusion_table(matrix, data.classes),
        per_class=class_table(matrix, data.classes),
        calibration=reliability_table(softmax(logits), labels, bins),
        slices=slice_table(image_properties(np.asarray(data.test.images)), predicted == labels),
    )
