"""Read or generate the images, split them, and write arrays and dataset card.

Reads raw data; writes data/prepared/ and reports/dataset.json.
"""

from cifarpipe.config.command import run


def main() -> None:
    """Prepare the images that `data` of params.yaml describes."""
    from cifarpipe.config.reader import load_params

    params = load_params()

    from cifarpipe.data.preparation import prepare, public_card, warnings
    from cifarpipe.data.sources import read_source
    from cifarpipe.store.outputs import write_json
    from cifarpipe.store.paths import DATASET_CARD

    prepared = prepare(read_source(params.data, params.seed), params.data, params.seed)
    write_json(DATASET_CARD, public_card(prepared))
    sizes = ", ".join(f"{count} {name}" for name, count in prepared.card["images"].items())
    count = len(prepared.classes)
    print(f"{params.data.source}: {count} class{'es' if count > 1 else ''}, {sizes}")
    for warning in warnings(prepared):
        print(f"warning: {warning}")


if __name__ == "__main__":
    run(main)
