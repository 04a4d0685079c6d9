"""Train one model.

Reads data/prepared/; writes artifacts/M/model.safetensors and, in reports/models/M/, history.csv,
layers.csv and cost.json.
"""

from typing import Annotated

import typer

from stages.command import run


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Train one model of params.yaml by its recipe."""
    from cifarpipe.params import load_params

    params = load_params()
    entry = params.model(model)

    import torch

    from cifarpipe.checkpoint import Origin, save_model
    from cifarpipe.data.prepared import load_prepared
    from cifarpipe.devices import device_name, pick_device, pick_precision
    from cifarpipe.models.build import build_model
    from cifarpipe.models.cost import layer_table
    from cifarpipe.outputs import write_csv, write_json
    from cifarpipe.training import train
    from stages.paths import artifact, model_report

    data = load_prepared()
    device = pick_device()
    precision = pick_precision(params.train.precision, device)
    torch.manual_seed(params.seed)
    network = build_model(entry, num_classes=len(data.classes), image_size=data.image_size)
    layers = layer_table(network, data.image_size)
    trained = train(
        model,
        network,
        entry,
        train_split=data.train,
        val_split=data.val,
        mean=data.mean,
        std=data.std,
        peak_lr=params.peak_lr(model),
        seed=params.seed,
        keep=params.train.keep,
        precision=precision,
        device=device,
    )
    origin = Origin(
        name=model,
        entry=entry.model_dump(mode="json"),
        classes=data.classes,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        data_fingerprint=data.fingerprint,
        seed=params.seed,
        peak_lr=params.peak_lr(model),
        kept_epoch=trained.kept_epoch,
        val_accuracy=trained.val_accuracy,
        precision=precision,
        device=device_name(device),
        torch=torch.__version__,
    )
    save_model(artifact(model, "model.safetensors"), trained.weights, origin)
    write_csv(model_report(model, "history.csv"), trained.history, float_format="%.6g")
    write_csv(model_report(model, "layers.csv"), layers)
    totals = {"parameters": int(layers.parameters.sum()), "macs": int(layers.macs.sum())}
    write_json(model_report(model, "cost.json"), {model: totals})


if __name__ == "__main__":
    run(main)
