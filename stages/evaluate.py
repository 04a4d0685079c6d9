"""Evaluate one trained model on the test split, which no earlier stage reads.

Reads data/prepared/ and artifacts/M/model.safetensors; writes artifacts/M/predictions.csv and, in
reports/models/M/, metrics.json, metrics.csv, confusion.csv, classes.csv, calibration.csv,
slices.csv and, with the digest of the predictions, evaluated.csv.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Evaluate one trained model of params.yaml."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    entry = params.model(model)

    from cifarpipe.evaluation.diagnosis import learning_warnings
    from cifarpipe.evaluation.evaluate import evaluate
    from cifarpipe.evaluation.metrics import headline
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.results.digests import write_digests
    from cifarpipe.results.metrics import metrics_table
    from cifarpipe.store.outputs import write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    origin.require(entry.architecture, data)
    found = evaluate(network, origin, data, params.evaluate)

    write_csv(artifact(model, "predictions.csv"), found.predictions)
    write_digests(model, "evaluated.csv", "predictions.csv", trained_on=origin.trained_on)
    write_csv(model_report(model, "metrics.csv"), metrics_table(found.metrics))
    write_csv(model_report(model, "confusion.csv"), found.confusion)
    write_csv(model_report(model, "classes.csv"), found.per_class)
    write_csv(model_report(model, "calibration.csv"), found.calibration)
    write_csv(model_report(model, "slices.csv"), found.slices)
    write_json(model_report(model, "metrics.json"), {model: headline(found.metrics)})

    accuracy, errors = found.metrics["accuracy"], found.metrics["errors"].value
    print(
        f"{model}: accuracy {accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}], "
        f"{errors} errors in {len(data.test)} images"
    )
    for warning in learning_warnings(found.confusion, origin.train_loss, len(data.classes)):
        print(f"warning: {model} {warning}")


if __name__ == "__main__":
    run(main)
