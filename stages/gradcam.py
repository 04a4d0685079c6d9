"""Explain every test image of one model, show the gathered ones, and put the maps to the test.

Reads data/prepared/, artifacts/M/model.safetensors, artifacts/M/predictions.csv and, in
reports/models/M/, misclassified.csv and correct.csv; writes artifacts/M/cams.npz and, in
reports/models/M/, gradcam.png, gradcam_correct.png, gradcam.csv with all figures of the maps'
worth, and gradcam.json with the foremost of them.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Draw where one model of params.yaml saw evidence for the predicted and the true class."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    method = params.cam_method(model)
    options = params.gradcam

    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.explanations.quality import HEADLINES, quality_figures
    from cifarpipe.figures.maps import draw_explanations
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.results.maps import CLASS_AGNOSTIC, save_maps
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.results.tables import figures_table, read_table
    from cifarpipe.store.outputs import write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    test = data.test
    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    origin.require(params.model(model), data)
    explainer = Explainer(network, origin, method, options.batch_size)
    predictions = read_predictions(
        artifact(model, "predictions.csv"), data.test, data.classes, data.test_files
    )
    explained = explainer.explain(test, predictions, progress=f"{model}: {method}")
    save_maps(artifact(model, "cams.npz"), explained.index, explained.predicted, explained.true)

    for name, picture in (("misclassified", "gradcam.png"), ("correct", "gradcam_correct.png")):
        rows = read_table(model_report(model, f"{name}.csv"))
        shown = explained.of(rows["index"].to_numpy())
        figure = draw_explanations(
            test.images[test.positions(shown.index)],
            rows,
            shown.predicted,
            None if method in CLASS_AGNOSTIC else shown.true,
            opacity=options.opacity,
            title=f"{model}: {method} of {name} test images",
        )
        save_figure(figure, model_report(model, picture))

    figures = quality_figures(
        explainer,
        test,
        predictions,
        explained,
        data.test_masks,
        removal_images=options.removal_images,
        seed=options.seed,
    )
    write_csv(model_report(model, "gradcam.csv"), figures_table(figures))
    headlines = {name: figures[name] for name in HEADLINES if name in figures}
    write_json(model_report(model, "gradcam.json"), {model: {"gradcam": headlines}})
    said = ", ".join(f"{name} {value}" for name, value in headlines.items())
    print(f"{model}: {method}: {said}")


if __name__ == "__main__":
    run(main)
