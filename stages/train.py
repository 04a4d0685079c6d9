"""Train one model.

Reads data/prepared/; writes artifacts/M/model.safetensors and, in reports/models/M/, layers.csv
and, after every epoch, history.csv and training.json. While it runs, .resume/M/ holds the state
from which a killed run resumes. The time of each epoch is in logs/M.csv, which nothing reads.
"""

from pathlib import Path
from typing import Annotated

import typer

from cifarpipe.config.command import run
from cifarpipe.store.paths import resume_folder


def main(model: Annotated[str, typer.Argument(help="Name of an entry of `models`.")]) -> None:
    """Train one model of params.yaml by its recipe."""
    from cifarpipe.config.reader import load_params

    params = load_params()
    entry, folder = params.model(model), resume_folder(model)

    import torch

    from cifarpipe.models.build import build_model
    from cifarpipe.store.outputs import write_csv
    from cifarpipe.store.paths import model_report
    from cifarpipe.store.prepared import load_prepared
    from cifarpipe.training.cost import layer_table
    from cifarpipe.training.distributed import World
    from cifarpipe.training.execution import plan_execution
    from cifarpipe.training.launch import run_on_devices
    from cifarpipe.training.loop import Run, train
    from cifarpipe.training.records import run_fingerprint, save_trained, write_progress
    from cifarpipe.training.resume import ResumeStore

    def work(world: World, device: torch.device) -> None:
        data = load_prepared()
        torch.manual_seed(params.seed)
        classes, size = len(data.classes), data.image_size
        network = build_model(entry.architecture, num_classes=classes, image_size=size, name=model)
        layers = layer_table(network, size)
        macs = int(layers.macs.sum()) * entry.epochs * len(data.train)
        execution = plan_execution(params.train, network, macs, device, world)
        plan = Run(model, entry, params.lr * entry.lr_scale, params.seed, params.train.keep)
        fingerprint = run_fingerprint(plan, data, execution, stage=Path(__file__))
        resume = ResumeStore(folder, fingerprint, writes=world.is_main)
        with resume.locked(model):
            state = train(network, data, plan, execution, resume, on_epoch_end=write_progress)
            if world.is_main:
                write_csv(model_report(model, "layers.csv"), layers)
                save_trained(state, plan, data, execution)
                resume.discard()

    run_on_devices(work, params.train.devices, name=model, module="stages.train", states=folder)


if __name__ == "__main__":
    run(main)
