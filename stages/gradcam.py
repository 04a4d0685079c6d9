"""Explain the gathered images of one model: these very ones, in this very order.

Reads data/prepared/, artifacts/M/model.safetensors, artifacts/M/predictions.csv and, in
reports/models/M/, misclassified.csv and correct.csv; writes artifacts/M/cams.npz and, in
reports/models/M/, gradcam.png, gradcam_correct.png and gradcam.json.
"""

from typing import Annotated

import typer

from stages.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Draw where one model of params.yaml saw evidence for the predicted and the true class."""
    from cifarpipe.params_file import load_params

    params = load_params()
    params.model(model)
    options = params.gradcam

    from cifarpipe.checkpoint import load_model
    from cifarpipe.data.prepared import load_prepared
    from cifarpipe.devices import pick_device
    from cifarpipe.evaluation import read_table
    from cifarpipe.explain import evidence_figures, explain, pointing_figures, save_maps
    from cifarpipe.figures import draw_explanations, save_figure
    from cifarpipe.outputs import write_json
    from stages.paths import artifact, model_report

    data = load_prepared()
    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    explained = {}
    for name, picture in (("misclassified", "gradcam.png"), ("correct", "gradcam_correct.png")):
        rows = read_table(model_report(model, f"{name}.csv"))
        explained[name] = explain(network, origin, data.test, rows, options.batch_size)
        figure = draw_explanations(
            data.test.images[data.test.positions(rows["index"].to_numpy())],
            rows,
            explained[name].predicted,
            explained[name].true,
            opacity=options.opacity,
            title=f"{model}: Grad-CAM of {name} test images",
        )
        save_figure(figure, model_report(model, picture))
    save_maps(artifact(model, "cams.npz"), explained)

    figures = evidence_figures(explained)
    if data.test_masks is not None:
        predictions = read_table(artifact(model, "predictions.csv"))
        correct = predictions[predictions.true == predictions.predicted][: options.mask_images]
        maps = explain(network, origin, data.test, correct, options.batch_size).predicted
        figures |= pointing_figures(
            maps, data.test_masks[data.test.positions(correct["index"].to_numpy())]
        )
    write_json(model_report(model, "gradcam.json"), {model: {"gradcam": figures}})
    print(f"{model}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    run(main)
