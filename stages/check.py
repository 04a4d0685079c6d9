"""Validate params.yaml, and notice changes of the raw images, before any other stage runs.

Reads all of params.yaml, the files of `report.baselines` and the raw images of `data.folder`.
Writes data/source.json, which changes only with these images and their source. DVC runs this stage
every time.
"""

from cifarpipe.config.command import run


def main() -> None:
    """Validate params.yaml and compare the raw images with those of the last run."""
    from cifarpipe.config.reader import load_params

    params = load_params()

    from cifarpipe.data.watch import update_source
    from cifarpipe.report.baseline_curves import check_baselines

    check_baselines(params.report.baselines or {})
    update_source(params.data.source, params.data.folder)


if __name__ == "__main__":
    run(main)
