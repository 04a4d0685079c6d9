"""Write the report of all models.

Reads reports/models/, artifacts/ (predictions, maps and neighbours), data/prepared/,
reports/dataset.json and data/baselines/; writes, in reports/, index.html, summary.md,
leaderboard.csv, pairs.csv, weak_groups.csv, label_candidates.csv, near_duplicates.csv, curves.csv,
curves.png and dataset.png.
"""

import json

from cifarpipe.config.command import run


def main() -> None:
    """Write the report of all models of params.yaml."""
    from cifarpipe.config.reader import load_params

    params = load_params()

    from cifarpipe.figures.curves import draw_curves
    from cifarpipe.figures.galleries import draw_samples
    from cifarpipe.figures.layout import save_figure
    from cifarpipe.report.pages import page_warnings, write_pages
    from cifarpipe.report.provenance import provenance
    from cifarpipe.report.public_labels import load_public_labels
    from cifarpipe.report.study import Study, curves_table, read_results
    from cifarpipe.store.outputs import write_csv
    from cifarpipe.store.paths import DATASET_CARD, REPORTS, left_over_folders
    from cifarpipe.store.prepared import load_prepared

    data = load_prepared()
    labels = load_public_labels(params.report.labels, data.classes, data.test.files)
    results = [read_results(name, entry.arch, data) for name, entry in params.models.items()]
    dataset = json.loads(DATASET_CARD.read_text(encoding="utf-8"))["dataset"]
    study = Study(params, dataset, data.train, data.test, results, provenance())

    write_csv(REPORTS / "leaderboard.csv", study.board)
    write_csv(REPORTS / "pairs.csv", study.pairs)
    write_csv(REPORTS / "weak_groups.csv", study.weak_groups)
    write_csv(REPORTS / "label_candidates.csv", study.label_candidates)
    write_csv(REPORTS / "near_duplicates.csv", study.near_duplicates)
    write_csv(REPORTS / "curves.csv", curves_table(results))
    samples = draw_samples(data.train.images, data.train.labels, data.classes)
    save_figure(samples, REPORTS / "dataset.png")
    histories = {model.name: model.history for model in results}
    save_figure(draw_curves(histories, study.baselines), REPORTS / "curves.png")
    page = write_pages(study, labels, REPORTS)

    print(f"report: {page.resolve()}")
    for warning in page_warnings(page, labels):
        print(f"warning: {warning}")
    if folders := left_over_folders(params.models):
        print(
            f"warning: {', '.join(map(str, folders))} belong to no model of params.yaml; "
            f"`cifarpipe prune` removes them"
        )


if __name__ == "__main__":
    run(main)
