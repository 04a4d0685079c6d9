"""Remove what models that are no longer in params.yaml have left behind."""

import shutil

import typer

from cifarpipe.config.reader import load_params
from cifarpipe.store.paths import left_over_folders, left_over_logs


def remove_left_overs(*, ask: bool) -> None:
    """List the left-over files and remove them.

    What DVC stored of them stays in its cache: if the model is added again with the same
    parameters, `dvc repro` takes everything from there.

    Args:
        ask: For confirmation.
    """
    models = load_params().models
    paths = [*left_over_folders(models), *left_over_logs(models)]
    if not paths:
        print("Nothing to remove: all files belong to models of params.yaml.")
        return
    for path in paths:
        print(f"{path}/" if path.is_dir() else path)
    if ask:
        typer.confirm("Remove these?", abort=True)
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print("Removed. Run `dvc repro`: the report no longer depends on them.")
