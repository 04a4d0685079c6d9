"""Measure one trained model on the test split, which no earlier stage looks at.

Reads data/prepared/ and artifacts/M/model.safetensors; writes artifacts/M/predictions.csv and, in
reports/models/M/, metrics.json, confusion.csv, classes.csv, calibration.csv and slices.csv.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from cifarpipe.config.command import run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Evaluate one trained model of params.yaml."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    entry = params.model(model)

    import numpy as np
    import torch

    from cifarpipe.evaluation.calibration import fit_temperature, reliability_table
    from cifarpipe.evaluation.diagnosis import answer_faults
    from cifarpipe.evaluation.metrics import (
        class_table,
        confusion_matrix,
        confusion_table,
        measure,
        softmax,
        tta_accuracy,
    )
    from cifarpipe.evaluation.slices import picture_properties, slice_table
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.networks.images import ImageStore
    from cifarpipe.networks.inference import compute_logits
    from cifarpipe.results.predictions import predictions_table
    from cifarpipe.store.outputs import write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import Split, load_prepared

    data = load_prepared()
    device = pick_device()
    network, origin = load_model(artifact(model, "model.safetensors"), device)
    origin.require(entry, data)

    def answers(split: Split, name: str, *, mirrored: bool = False) -> "NDArray[np.float32]":
        logits = compute_logits(
            network,
            ImageStore(split.images, device),
            mean=torch.tensor(origin.mean, device=device),
            std=torch.tensor(origin.std, device=device),
            batch_size=params.evaluate.batch_size,
            mirrored=mirrored,
            progress=f"{model} on {name}",
        )
        return logits.cpu().numpy()

    # How sure it is to be is learnt from images that chose nothing but the epoch.
    temperature = fit_temperature(answers(data.val, "validation"), np.asarray(data.val.labels))
    logits, labels = answers(data.test, "test"), np.asarray(data.test.labels)
    bins = params.evaluate.calibration_bins
    figures = measure(logits, labels, calibration_bins=bins, temperature=temperature)
    if params.evaluate.tta == "flip":
        flipped = answers(data.test, "test, mirrored", mirrored=True)
        figures["tta_accuracy"] = tta_accuracy(logits, flipped, labels=labels)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(data.classes))
    table = predictions_table(logits, labels, data.test.index, data.classes, data.test_files)
    write_csv(artifact(model, "predictions.csv"), table)
    confusion = confusion_table(matrix, data.classes)
    write_csv(model_report(model, "confusion.csv"), confusion)
    write_csv(model_report(model, "classes.csv"), class_table(matrix, data.classes))
    write_csv(
        model_report(model, "calibration.csv"), reliability_table(softmax(logits), labels, bins)
    )
    right = logits.argmax(axis=1) == labels
    slices = slice_table(picture_properties(np.asarray(data.test.images)), right)
    write_csv(model_report(model, "slices.csv"), slices)
    known = {
        "kept_epoch": origin.kept_epoch,
        "val_accuracy": origin.val_accuracy and round(origin.val_accuracy, 4),
        "trained_on": origin.trained_on,
    }
    write_json(model_report(model, "metrics.json"), {model: figures | known})
    print(
        f"{model}: accuracy {figures['accuracy']:.4f} "
        f"[{figures['accuracy_low']:.4f}, {figures['accuracy_high']:.4f}], "
        f"{figures['errors']} errors in {len(labels)} images"
    )
    for fault in answer_faults(figures, confusion):
        print(f"warning: {model} {fault}")


if __name__ == "__main__":
    run(main)
