"""Measure one trained model on the test split, which no earlier stage looks at.

Reads data/prepared/ and artifacts/M/model.safetensors; writes artifacts/M/predictions.csv and, in
reports/models/M/, metrics.json, confusion.csv and classes.csv.
"""

from typing import Annotated

import typer

from stages.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Evaluate one trained model of params.yaml."""
    from cifarpipe.params_file import load_params

    params = load_params()
    params.model(model)

    import numpy as np
    import torch

    from cifarpipe.checkpoint import load_model
    from cifarpipe.data.prepared import load_prepared
    from cifarpipe.data.store import ImageStore
    from cifarpipe.devices import pick_device
    from cifarpipe.evaluation import (
        class_table,
        confusion_matrix,
        confusion_table,
        measure,
        predictions_table,
    )
    from cifarpipe.inference import compute_logits
    from cifarpipe.outputs import write_csv, write_json
    from stages.paths import artifact, model_report

    data = load_prepared()
    device = pick_device()
    network, origin = load_model(artifact(model, "model.safetensors"), device)
    logits = (
        compute_logits(
            network,
            ImageStore(data.test.images, device),
            mean=torch.tensor(origin.mean, device=device),
            std=torch.tensor(origin.std, device=device),
            batch_size=params.evaluate.batch_size,
            progress=f"{model} on test",
        )
        .cpu()
        .numpy()
    )
    labels = np.asarray(data.test.labels)
    figures = measure(logits, labels, calibration_bins=params.evaluate.calibration_bins)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), len(data.classes))
    table = predictions_table(logits, labels, data.test.index, data.classes, data.test_files)
    write_csv(artifact(model, "predictions.csv"), table)
    write_csv(model_report(model, "confusion.csv"), confusion_table(matrix, data.classes))
    write_csv(model_report(model, "classes.csv"), class_table(matrix, data.classes))
    kept = {"kept_epoch": origin.kept_epoch, "val_accuracy": origin.val_accuracy}
    write_json(model_report(model, "metrics.json"), {model: figures | kept})
    print(
        f"{model}: accuracy {figures['accuracy']:.4f} "
        f"[{figures['accuracy_low']:.4f}, {figures['accuracy_high']:.4f}], "
        f"{figures['errors']} errors in {len(labels)} images"
    )


if __name__ == "__main__":
    run(main)
