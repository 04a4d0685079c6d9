"""What a run leaves behind: its progress after each epoch, its model, and the key of its state."""

from collections.abc import Mapping
from pathlib import Path

import torch

import cifarpipe
from cifarpipe.config.errors import UserError
from cifarpipe.networks.checkpoint import Origin, save_model
from cifarpipe.store.outputs import write_csv, write_json
from cifarpipe.store.paths import artifact, model_report, training_log
from cifarpipe.store.prepared import Prepared
from cifarpipe.training.distributed import World
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Run
from cifarpipe.training.resume import fingerprint
from cifarpipe.training.state import TrainingState

# Packages that compute the weights, besides the stage's script and the architecture's file: an edit
# of any starts a killed run anew. A test compares them with what dvc.yaml lists for the stage.
CODE = ("augment", "networks", "store", "training")


def run_fingerprint(run: Run, data: Prepared, execution: Execution, stage: Path) -> str:
    """Return a hash of everything that shapes the run's weights.

    Args:
        run: Recipe, learning rate and seed.
        data: Its fingerprint and splits count.
        execution: Device, precision and what else the bits may depend on.
        stage: The script that puts these together.

    Raises:
        UserError: Some of this differs between the processes of the run.
    """
    recipe = {
        "architecture": run.recipe.architecture,
        "recipe": run.recipe.given(),
        "peak_lr": run.peak_lr,
        "seed": run.seed,
        "keep": run.keep,
    }
    package = Path(cifarpipe.__file__).parent
    network = package / "models" / f"{run.recipe.architecture['arch']}.py"
    code = [stage, network, *(package / name for name in CODE)]
    images = [data.train.index, data.val.index]
    # Named as in the message about a difference.
    parts = {
        "params.yaml": fingerprint(recipe),
        "data/prepared": fingerprint({"data": data.fingerprint}, images),
        "the code": fingerprint(code=code),
        "precision": execution.precision,
        "the version of PyTorch": torch.__version__,
    }
    check_agreement(parts, execution.world)
    return fingerprint(parts | execution.describe())


def check_agreement(parts: Mapping[str, str], world: World) -> None:
    """Check that all processes of a run have the same parts, by name.

    Raises:
        UserError: They differ; raised in every process.
    """
    everywhere = world.gather(dict(parts))
    if differing := [name for name in parts if len({each[name] for each in everywhere}) > 1]:
        raise UserError(
            f"the machines of this training differ in {', '.join(differing)}.\n"
            f"All need the same commit, packages, params.yaml and data/prepared, and must compute "
            f"in the same precision (`train.precision`)."
        )


def write_progress(model: str, state: TrainingState) -> None:
    """Write the history so far; `dvc exp show` reads the metrics while a stage runs."""
    history = state.history()
    write_csv(training_log(model), history, float_format="%.6g")
    # Without times, which would change the file whenever the stage is repeated.
    without_times = history.drop(columns="seconds")
    write_csv(model_report(model, "history.csv"), without_times, float_format="%.6g")
    kept = None if history.val_acc.isna().all() else round(state.kept.val_acc, 4)
    metrics = {"epoch": len(history), "val_accuracy": kept}
    write_json(model_report(model, "training.json"), {model: metrics})


def save_trained(state: TrainingState, run: Run, data: Prepared, execution: Execution) -> None:
    """Write the kept weights and their origin as the model's artifact."""
    architecture = run.recipe.architecture
    eager = {"compiled": False, "graphed": False} if state.fell_back else {}
    origin = Origin(
        name=run.name,
        architecture=architecture,
        recipe={k: v for k, v in run.recipe.given().items() if k not in architecture},
        classes=data.classes,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        data_fingerprint=data.fingerprint,
        split_fingerprint=data.split_fingerprint,
        seed=run.seed,
        peak_lr=run.peak_lr,
        kept_epoch=state.kept_epoch,
        val_accuracy=state.kept.val_acc if len(data.val) else None,
        train_loss=state.rows[-1].train_loss,
        execution=execution.describe() | eager,
    )
    save_model(artifact(run.name, "model.safetensors"), state.kept_weights, origin)
