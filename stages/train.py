"""Train one model.

Reads data/prepared/; writes artifacts/M/model.safetensors and, in reports/models/M/, history.csv,
training.json (both after every epoch), layers.csv and cost.json. While it runs, .resume/M/ holds
what a killed run goes on from. How long each epoch took is in logs/M.csv, which nothing reads.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import cifarpipe
from cifarpipe.config.command import run

# Packages that a run computes with, beside this file and its architecture: an edit of any starts it
# anew. tests/test_dag.py compares them with what dvc.yaml lists for the stage.
CODE = ("augment", "networks", "store", "training")

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from cifarpipe.config.schema import Params
    from cifarpipe.training.distributed import World


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Train one model of params.yaml by its recipe."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    params.model(model)

    from cifarpipe.store.paths import resume_folder
    from cifarpipe.training.distributed import check_devices, is_launched, joined, launch
    from cifarpipe.training.gpus import claimed_gpus
    from cifarpipe.training.resume import locked

    check_devices(params.train.devices)
    with ExitStack() as held:
        # A launched process has its own; what launched it holds them.
        alone = not is_launched()
        gpus = held.enter_context(claimed_gpus(params.train.devices, model)) if alone else [0]
        if len(gpus) > 1:
            with locked(resume_folder(model), model):
                pass  # else every process would say so
            launch(gpus, "stages.train", model)
            return
        world, device = held.enter_context(joined(gpus[0]))
        train_model(model, params, world, device)


def train_model(model: str, params: "Params", world: "World", device: "torch.device") -> None:
    """Train, and write what came out, as one of the processes that do so together."""
    import torch

    from cifarpipe.augment.pipeline import check_strengths
    from cifarpipe.models.build import build_model
    from cifarpipe.networks.checkpoint import Origin, save_model
    from cifarpipe.store.outputs import write_csv, write_json
    from cifarpipe.store.paths import artifact, model_report, resume_folder, training_log
    from cifarpipe.store.prepared import load_prepared
    from cifarpipe.training.cost import count_macs, layer_table
    from cifarpipe.training.execution import plan_execution
    from cifarpipe.training.loop import train
    from cifarpipe.training.resume import ResumeStore, fingerprint

    package = Path(cifarpipe.__file__).parent
    entry = params.model(model)
    data = load_prepared()
    peak_lr = params.lr * entry.lr_scale
    check_strengths(model, entry.augment, data.image_size)
    torch.manual_seed(params.seed)
    network = build_model(entry, num_classes=len(data.classes), image_size=data.image_size)
    macs = count_macs(network, data.image_size) * entry.epochs * len(data.train)
    execution = plan_execution(params.train, entry.arch, macs, device, world)
    shaped_by = {
        "entry": entry.model_dump(mode="json"),
        "peak_lr": peak_lr,
        "seed": params.seed,
        "keep": params.train.keep,
        "data": data.fingerprint,
        **execution.describe(),
    }
    code = [Path(__file__), package / f"models/{entry.arch}.py", *(package / name for name in CODE)]
    this_run = fingerprint(shaped_by, [data.train.index, data.val.index], code)
    resume = ResumeStore(resume_folder(model), this_run, writes=world.leads)

    def tell(history: "pd.DataFrame") -> None:
        """Let others see how far it is: `dvc exp show` reads metrics while a stage runs."""
        write_csv(training_log(model), history, float_format="%.6g")
        # Without times, what DVC keeps is the same to the byte when it is made again.
        history = history.drop(columns="seconds")
        write_csv(model_report(model, "history.csv"), history, float_format="%.6g")
        last = history.iloc[-1].drop("lr").dropna().round(4)
        training = {"epoch": int(last.pop("epoch"))} | last.to_dict()
        write_json(model_report(model, "training.json"), {model: {"training": training}})

    with resume.locked(model):
        trained = train(
            model,
            network,
            entry,
            train_split=data.train,
            val_split=data.val,
            mean=data.mean,
            std=data.std,
            classes=len(data.classes),
            peak_lr=peak_lr,
            seed=params.seed,
            keep=params.train.keep,
            execution=execution,
            resume=resume,
            tell=tell if world.leads else None,
        )
        if not world.leads:
            return
        origin = Origin(
            name=model,
            entry=entry.model_dump(mode="json"),
            classes=data.classes,
            image_size=data.image_size,
            mean=data.mean,
            std=data.std,
            data_fingerprint=data.fingerprint,
            split_fingerprint=data.split_fingerprint,
            seed=params.seed,
            peak_lr=peak_lr,
            kept_epoch=trained.kept_epoch,
            val_accuracy=trained.val_accuracy,
            execution=execution.describe(),
        )
        save_model(artifact(model, "model.safetensors"), trained.weights, origin)
        layers = layer_table(network, data.image_size)
        write_csv(model_report(model, "layers.csv"), layers)
        totals = {"parameters": int(layers.parameters.sum()), "macs": int(layers.macs.sum())}
        write_json(model_report(model, "cost.json"), {model: totals})
        resume.discard()


if __name__ == "__main__":
    run(main)
