"""Explain every test image of one model, and evaluate the explanations.

Reads data/prepared/, artifacts/M/model.safetensors and artifacts/M/predictions.csv; writes the maps
(artifacts/M/cams.npz), what the network finds similar (artifacts/M/neighbours.npz) and, in
reports/models/M/, their digests (explained.csv) and metrics (gradcam.csv, gradcam.json).
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Compute where one model of params.yaml finds evidence for its predictions."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    entry, method, options = params.model(model), params.explanation_method(model), params.gradcam

    from cifarpipe.explanations.embedding import embed
    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.explanations.neighbours import find_neighbours
    from cifarpipe.explanations.quality import headline, quality_metrics
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.results.digests import write_digests
    from cifarpipe.results.maps import save_explanations
    from cifarpipe.results.metrics import metrics_table
    from cifarpipe.results.neighbours import save_neighbours
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.store.outputs import write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    origin.require(entry.architecture, data)
    predictions = read_predictions(artifact(model, "predictions.csv"), data)
    embedding = embed(network, origin, data, options.batch_size, progress=model)
    explainer = Explainer(network, origin, method, options.batch_size)
    explainer.check(data.test, predictions, embedding.logits)
    explanations = explainer.explain(data.test, predictions, progress=f"{model}: {method}")
    save_explanations(artifact(model, "cams.npz"), explanations)
    neighbours = find_neighbours(embedding, data, seed=options.seed)
    save_neighbours(artifact(model, "neighbours.npz"), neighbours)
    metrics = quality_metrics(
        explainer, data.test, predictions, explanations, data.test_masks,
        removal_images=options.removal_images, seed=options.seed,
    )  # fmt: skip
    write_digests(model, "explained.csv", "cams.npz", "neighbours.npz")
    write_csv(model_report(model, "gradcam.csv"), metrics_table(metrics))
    write_json(model_report(model, "gradcam.json"), {model: headline(metrics)})
    print(f"{model}: {method}: {metrics['explained'].value} images explained")


if __name__ == "__main__":
    run(main)
