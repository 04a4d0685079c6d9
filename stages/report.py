"""Put everything that the other stages found into one report.

Reads reports/models/, artifacts/ (predictions and maps), data/prepared/, the dataset's card and
picture and data/baselines/; writes, in reports/, index.html, summary.md, leaderboard.csv, pairs.csv
and curves.png.
"""

import json
from typing import TYPE_CHECKING, Any

from cifarpipe.config.command import run

if TYPE_CHECKING:
    from collections.abc import Container

    from cifarpipe.config.schema import Params
    from cifarpipe.report.results import ModelResults
    from cifarpipe.store.prepared import Prepared


def main() -> None:
    """Write the summary report of all models of params.yaml."""
    from cifarpipe.config.reader import load_params

    params = load_params()

    from cifarpipe.figures.galleries import draw_curves
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.report.pages import (
        MOST_BYTES,
        Study,
        earlier_curves,
        pairs_table,
        render_html,
        render_markdown,
    )
    from cifarpipe.report.provenance import REPORTED, provenance
    from cifarpipe.report.public_labels import load_public_labels
    from cifarpipe.report.results import leaderboard
    from cifarpipe.store.outputs import write_csv, write_text
    from cifarpipe.store.paths import DATASET_CARD, DATASET_PICTURE, REPORTS
    from cifarpipe.store.prepared import load_prepared

    labels = load_public_labels(params.report.labels)
    data = load_prepared()
    images = data.test.images
    dataset = json.loads(DATASET_CARD.read_text(encoding="utf-8"))["dataset"]
    results = [read_results(name, params, data) for name in params.models]
    board = leaderboard(results)
    curves = draw_curves(
        {model.name: model.history for model in results},
        earlier=earlier_curves(params, dataset["classes"]),
    )
    save_figure(curves, REPORTS / "curves.png")
    write_csv(REPORTS / "leaderboard.csv", board)
    write_csv(REPORTS / "pairs.csv", pairs_table(results, board))
    study = Study(params, dataset, results, board, provenance(REPORTED))
    write_text(REPORTS / "summary.md", render_markdown(study))
    pictures = {"curves": REPORTS / "curves.png", "dataset": DATASET_PICTURE}
    page = render_html(
        study, pictures=pictures, labels=labels, images=lambda positions: images[positions]
    )
    write_text(REPORTS / "index.html", page)
    print(f"the report: {(REPORTS / 'index.html').resolve()}")
    if (size := len(page.encode())) > MOST_BYTES:
        print(
            f"note: it has {size / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:.1f} MB wanted: of "
            f"so many models and classes, the tables alone fill it."
        )
    if left_over := folders_of_no_model(params.models):
        print(
            f"note: {', '.join(left_over)} belong to no model of params.yaml. The report leaves "
            f"them out, but DVC takes them for what it depends on: delete them, or a clone that "
            f"lacks them runs it again."
        )


def folders_of_no_model(models: "Container[str]") -> list[str]:
    """Return what models have left that are no longer in params.yaml."""
    from cifarpipe.store.paths import ARTIFACTS, MODEL_REPORTS

    found = [folder for parent in (ARTIFACTS, MODEL_REPORTS) for folder in sorted(parent.iterdir())]
    return [f"{folder}/" for folder in found if folder.is_dir() and folder.name not in models]


def read_results(name: str, params: "Params", data: "Prepared") -> "ModelResults":
    """Read what the stages wrote about one model."""
    import pandas as pd

    from cifarpipe.report.results import ModelResults
    from cifarpipe.results.maps import load_maps
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.results.tables import read_figures, read_table
    from cifarpipe.store.paths import artifact, model_report

    def read_json(file: str) -> dict[str, Any]:
        return json.loads(model_report(name, file).read_text(encoding="utf-8"))[name]

    predicted_maps, true_maps = load_maps(artifact(name, "cams.npz"))
    return ModelResults(
        name=name,
        arch=params.models[name].arch,
        method=params.cam_method(name),
        metrics=read_json("metrics.json"),
        cost=read_json("cost.json"),
        gradcam=read_figures(model_report(name, "gradcam.csv")),
        history=pd.read_csv(model_report(name, "history.csv")),
        layers=pd.read_csv(model_report(name, "layers.csv"), keep_default_na=False),
        per_class=read_table(model_report(name, "classes.csv")),
        calibration=pd.read_csv(model_report(name, "calibration.csv")),
        slices=pd.read_csv(model_report(name, "slices.csv")),
        confusion=read_table(model_report(name, "confusion.csv")),
        misclassified=read_table(model_report(name, "misclassified.csv")),
        correct=read_table(model_report(name, "correct.csv")),
        predictions=read_predictions(
            artifact(name, "predictions.csv"), data.test, data.classes, data.test_files
        ),
        predicted_maps=predicted_maps,
        true_maps=true_maps,
    )


if __name__ == "__main__":
    run(main)
