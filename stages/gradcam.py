"""Explain every test image of one model, and evaluate the explanations.

Reads data/prepared/, artifacts/M/model.safetensors and artifacts/M/predictions.csv; writes
artifacts/M/cams.npz and, in reports/models/M/, gradcam.csv with all metrics of the explanations and
gradcam.json with the first of them.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Compute where one model of params.yaml finds evidence for its predictions."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    entry, method, options = params.model(model), params.cam_method(model), params.gradcam

    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.explanations.quality import HEADLINE, quality_metrics
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.results.maps import save_explanations
    from cifarpipe.results.metrics import Metric, metrics_table
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.store.outputs import short_digest, write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    origin.require(entry.architecture, data)
    predictions = read_predictions(artifact(model, "predictions.csv"), data)
    explainer = Explainer(network, origin, method, options.batch_size)
    explanations = explainer.explain(data.test, predictions, progress=f"{model}: {method}")
    path = artifact(model, "cams.npz")
    save_explanations(path, explanations)

    metrics = quality_metrics(
        explainer, data.test, predictions, explanations, data.test_masks,
        removal_images=options.removal_images, seed=options.seed,
    )  # fmt: skip
    first = {HEADLINE: metrics[HEADLINE].value} if HEADLINE in metrics else {}
    write_json(model_report(model, "gradcam.json"), {model: first})
    metrics["maps"] = Metric(short_digest(path))
    write_csv(model_report(model, "gradcam.csv"), metrics_table(metrics))
    print(f"{model}: {method}: {', '.join(f'{name} {m.value}' for name, m in metrics.items())}")


if __name__ == "__main__":
    run(main)
