"""Draw one model's selected images, and its explanations of these very images.

Reads data/prepared/, artifacts/M/cams.npz and, in reports/models/M/, misclassified.csv and
correct.csv; writes, in reports/models/M/, misclassified.png, correct.png, gradcam.png,
gradcam_correct.png and, for slides, gallery.png.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Draw the selected images of one model of params.yaml, and their maps."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    params.model(model)

    import pandas as pd

    from cifarpipe.figures.explanations import draw_explanations, draw_overview
    from cifarpipe.figures.galleries import draw_gallery
    from cifarpipe.figures.layout import DPI, save_figure
    from cifarpipe.results.maps import load_explanations
    from cifarpipe.results.tables import read_table
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    test = load_prepared().test
    explanations = load_explanations(artifact(model, "cams.npz"))
    opacity, selected = params.gradcam.opacity, {}
    for name, of_maps in (("misclassified", "gradcam"), ("correct", "gradcam_correct")):
        rows = selected[name] = read_table(model_report(model, f"{name}.csv"))
        shown = explanations.of(rows["index"].to_numpy())
        images = test.images[test.positions(shown.index)]
        figure = draw_gallery(images, rows, f"{model}: {name} test images")
        save_figure(figure, model_report(model, f"{name}.png"))
        title = f"{model}: {shown.method} of {name} test images"
        figure = draw_explanations(images, rows, shown, opacity=opacity, title=title)
        save_figure(figure, model_report(model, f"{of_maps}.png"))
    rows = pd.concat(selected.values(), ignore_index=True)
    shown = explanations.of(rows["index"].to_numpy())
    images = test.images[test.positions(shown.index)]
    title = f"{model}: {shown.method}"
    figure = draw_overview(images, rows, shown, opacity=opacity, title=title)
    save_figure(figure, model_report(model, "gallery.png"), dpi=2 * DPI)


if __name__ == "__main__":
    run(main)
