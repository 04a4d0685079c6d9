"""Gather some of one model's errors, and as many correct images, as tables and pictures.

Reads data/prepared/ and artifacts/M/predictions.csv; writes, in reports/models/M/,
misclassified.csv, misclassified.png, correct.csv and correct.png.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Choose errors of one model of params.yaml evenly over the classes."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    params.model(model)
    wanted = params.misclassified

    from cifarpipe.evaluation.selection import choose_correct, choose_errors
    from cifarpipe.figures.galleries import draw_gallery
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.store.outputs import write_csv
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    predictions = read_predictions(
        artifact(model, "predictions.csv"), data.test, data.classes, data.test_files
    )
    errors = choose_errors(predictions, data.classes, count=wanted.count, seed=wanted.seed)
    correct = choose_correct(predictions, data.classes, errors, seed=wanted.seed)
    for name, rows in (("misclassified", errors), ("correct", correct)):
        write_csv(model_report(model, f"{name}.csv"), rows)
        pictures = data.test.images[data.test.positions(rows["index"].to_numpy())]
        save_figure(
            draw_gallery(pictures, rows, f"{model}: {name} test images"),
            model_report(model, f"{name}.png"),
        )
    print(f"{model}: {len(errors)} errors and {len(correct)} correct images chosen")


if __name__ == "__main__":
    run(main)
