"""The command `cifarpipe`: its subcommands and their options."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from cifarpipe.config.command import new_app, run_app

app = new_app(completion=True)


def complete_model(incomplete: str) -> list[str]:
    """Return the models of params.yaml whose names begin with what is typed so far."""
    from cifarpipe.config.errors import UserError
    from cifarpipe.config.reader import load_params

    try:
        names = list(load_params().models)
    except UserError:
        return []
    return [name for name in names if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(help="Name of a trained entry of `models`.", autocompletion=complete_model),
]


def main() -> None:
    """Run the command with the arguments of the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name may not be printable
    run_app(app)


@app.callback(no_args_is_help=True)
def root() -> None:
    """Run the study of params.yaml, compare results, and use trained models.

    Run it in the project's root folder.
    """


@app.command()
def explain(
    images: Annotated[
        list[Path], typer.Argument(help="Image files in any format that Pillow reads.")
    ],
    model: Model,
    method: Annotated[
        str | None, typer.Option(help="How to compute the maps; by default `gradcam.method`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="PNG to write; for several images, a folder. Default: IMAGE_MODEL.png, here."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of predictions to print.")] = 5,
) -> None:
    """Classify images with a trained model, and draw maps of the evidence.

    The exit code is 1 if one of several images is damaged; the others are still explained.
    """
    from cifarpipe.cli.explain import explain_files

    if not explain_files(images, model, method=method, out=out, top=top):
        raise typer.Exit(1)


@app.command()
def export(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default MODEL.onnx, here.")
    ] = None,
) -> None:
    """Export a trained model to ONNX, from pixels to probabilities, and check the file."""
    from cifarpipe.cli.export import export_model

    export_model(model, out)


@app.command()
def predict(
    paths: Annotated[
        list[str], typer.Argument(help="Image files, folders of them, or patterns in quotes.")
    ],
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="CSV to write; by default predictions_MODEL.csv, here.")
    ] = None,
) -> None:
    """Classify image files with a trained model, and write a CSV of all probabilities.

    The exit code is 1 if a file can't be read; the others are still classified.
    """
    from cifarpipe.cli.predict import predict_files

    if not predict_files(paths, model, out):
        raise typer.Exit(1)


@app.command()
def repro(
    jobs: Annotated[int, typer.Option(min=1, help="Number of models to run in parallel.")] = 1,
) -> None:
    """Run the stages that have changed, as `dvc repro` does, with several models in parallel."""
    from cifarpipe.cli.repro import reproduce

    raise typer.Exit(reproduce(jobs))


@app.command()
def train(
    model: Annotated[
        str, typer.Argument(help="Name of an entry of `models`.", autocompletion=complete_model)
    ],
    nodes: Annotated[int, typer.Option(min=2, help="Number of machines.")],
    rank: Annotated[int, typer.Option(min=0, help="Rank of this machine, from 0.")],
    address: Annotated[str, typer.Option(help="HOST:PORT of the machine of rank 0.")],
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes here; by default one per GPU, or one on the CPU."),
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds to wait for the others.")] = 600,
) -> None:
    """Train one model on several machines: run this command on each of them.

    For one machine, use `dvc repro`.
    """
    from cifarpipe.cli.train import train_on_nodes

    train_on_nodes(
        model, nodes=nodes, rank=rank, address=address, processes=processes, timeout=timeout
    )


@app.command()
def slurm(
    settings: Annotated[
        Path | None,
        typer.Option(help="A file with a line per experiment: -S KEY=VALUE, once or more."),
    ] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="Take the experiments of `dvc exp run --queue`.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Prefix of the experiments' names; by default the name of the file."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(help="Git repository to use if the nodes do not see this folder."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(help="Options of `sbatch`, after --.")
    ] = None,
) -> None:
    """Submit experiments to a Slurm cluster; without --settings or --queue, show their state.

    The exit code is 1 if one of those shown has failed or was killed.
    """
    from cifarpipe.cli.slurm.status import show_jobs
    from cifarpipe.cli.slurm.submit import submit
    from cifarpipe.config.errors import UserError

    if settings is not None and queue:
        raise UserError("Give either --settings FILE or --queue, not both.")
    if settings is not None or queue:
        submit(settings, name=name, origin=origin, options=options or [])
        return
    if name is not None or origin is not None or options:
        raise UserError(
            "--name, --origin and options of sbatch need experiments to submit.\n"
            "Add --settings FILE or --queue."
        )
    raise typer.Exit(0 if show_jobs() else 1)


@app.command()
def sweep(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this model; may be given several times.", autocompletion=complete_model
        ),
    ] = None,
    rev: Annotated[
        list[str] | None,
        typer.Option(help="Commit that experiments started from; by default the current one."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the table and the figures.")] = Path(
        "sweep"
    ),
) -> None:
    """Compare finished experiments: which parameter values are best, in a table and a figure."""
    from cifarpipe.cli.sweep.output import compare_experiments

    compare_experiments(model or [], rev or [], out)


@app.command()
def review(
    base: Annotated[str, typer.Argument(help="Branch, tag, commit or experiment.")] = "main",
    out: Annotated[Path, typer.Option(help="Folder for the comment and its figures.")] = Path(
        "review"
    ),
) -> None:
    """Compare the workspace with another revision, and write a Markdown comment with figures."""
    from cifarpipe.cli.review.compare import write_review

    write_review(base, out)


@app.command()
def current() -> None:
    """Check that dvc.lock is up to date; works in a clone without data."""
    from cifarpipe.cli.current import check_current

    check_current()


@app.command("plots-page")
def plots_page() -> None:
    """Write the page of `dvc plots` for offline use; `make setup` does this, too."""
    from cifarpipe.cli.plots_page import write_plots_page

    write_plots_page()


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove the files of models that are no longer in params.yaml."""
    from cifarpipe.cli.prune import remove_left_overs

    remove_left_overs(ask=not yes)
