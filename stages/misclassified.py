"""Select some of one model's errors, and as many correct images.

Reads data/prepared/ and artifacts/M/predictions.csv; writes, in reports/models/M/,
misclassified.csv and correct.csv.
"""

from typing import Annotated

import typer

from cifarpipe.config.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Select errors of one model of params.yaml, stratified by class."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    params.model(model)
    options = params.misclassified

    from cifarpipe.evaluation.selection import select_correct, select_errors
    from cifarpipe.results.predictions import read_predictions
    from cifarpipe.store.outputs import write_csv
    from cifarpipe.store.paths import artifact, model_report
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    predictions = read_predictions(artifact(model, "predictions.csv"), data)
    errors = select_errors(predictions, data.classes, count=options.count, seed=options.seed)
    correct = select_correct(predictions, data.classes, errors, seed=options.seed)
    write_csv(model_report(model, "misclassified.csv"), errors)
    write_csv(model_report(model, "correct.csv"), correct)
    print(f"{model}: {len(errors)} errors and {len(correct)} correct images selected")


if __name__ == "__main__":
    run(main)
