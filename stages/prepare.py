"""Read or make the images, split them, write arrays and dataset card.

Reads raw data; writes data/prepared/, reports/dataset.json and reports/dataset.png.
"""

from cifarpipe.config.command import run


def main() -> None:
    """Prepare the images that `data` of params.yaml describes."""
    from cifarpipe.config.reader import load_params

    params = load_params()

    from cifarpipe.data.preparation import prepare, public_card
    from cifarpipe.data.sources import read_source
    from cifarpipe.figures.galleries import draw_samples
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.store.outputs import write_json
    from cifarpipe.store.paths import DATASET_CARD, DATASET_PICTURE

    prepared = prepare(read_source(params.data, params.seed), params.data, params.seed)
    write_json(DATASET_CARD, public_card(prepared))
    save_figure(
        draw_samples(prepared.train.images, prepared.train.labels, prepared.classes),
        DATASET_PICTURE,
    )
    sizes = ", ".join(f"{count} {name}" for name, count in prepared.card["images"].items())
    print(f"{params.data.source}: {len(prepared.classes)} classes, {sizes}")
    for pair, count in prepared.card["shared"].items():
        if count:
            later, earlier = pair.split("_in_")
            print(f"warning: {count} {later} images are in {earlier} too, to the last bit")


if __name__ == "__main__":
    run(main)
