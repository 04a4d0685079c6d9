"""The command `cifarpipe`: what people ask of trained models beside the pipeline."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarpipe.config.command import new_app, run_app
from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    from cifarpipe.cli.explain import Answer

MAPPED = 3  # classes whose evidence is drawn
BAR = 25  # characters of a probability of 1

app = new_app()


def main() -> None:
    """Run the command on the command line's arguments."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file's name may be no text, a terminal ASCII
    run_app(app)


@app.callback(no_args_is_help=True)
def root() -> None:
    """Look into the trained models of params.yaml. Run it in the project's root folder."""


@app.command()
def explain(
    picture: Annotated[Path, typer.Argument(help="Any picture file that Pillow reads.")],
    model: Annotated[str, typer.Option(help="Name of an entry of `models`, trained.")],
    method: Annotated[
        str | None, typer.Option(help="What makes the maps; by default as in `gradcam.method`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The PNG to write; by default PICTURE_MODEL.png, here.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Predictions to print.")] = 5,
) -> None:
    """Say what a trained model takes a picture for, and draw where it sees that."""
    from cifarpipe.config.reader import load_params
    from cifarpipe.results.maps import CLASS_AGNOSTIC

    params = load_params()
    params.model(model)
    out = out or Path(f"{picture.stem}_{model}.png")
    check_out(out, picture)

    from cifarpipe.cli.explain import answer, methods_for
    from cifarpipe.data.picture import read_picture
    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.figures.maps import draw_answer
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.store.paths import artifact

    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    arch = origin.entry["arch"]
    method = method or getattr(params.gradcam.method, arch)
    if method not in (allowed := methods_for(network)):
        raise UserError(
            f"--method is {method!r}; allowed for {model}, a {arch}: {', '.join(allowed)}.\n"
            f"Name one of these, or leave it out for that of params.yaml."
        )
    read = read_picture(picture, origin.image_size)
    explainer = Explainer(network, origin, method, params.gradcam.batch_size)
    found = answer(explainer, read.pixels, 1 if method in CLASS_AGNOSTIC else MAPPED)
    print(f"{picture}: {read.found};\n{', '.join(read.steps) or 'taken as it is'}.\n")
    print(prediction_table(found, top))

    figure = draw_answer(
        read.pixels,
        picture.name.encode(errors="replace").decode(),  # it need not be text
        found.classes,
        found.probabilities,
        found.maps,
        opacity=params.gradcam.opacity,
        title=f"What {model} sees, by {method}",
    )
    try:
        save_figure(figure, out)
    except UserError as error:
        why, _, _ = str(error).partition("\n")
        raise UserError(f"{why}\nName another --out.") from None
    print(f"\nWhere {model} sees that, by {method}: {out}")


@app.command()
def sweep(
    model: Annotated[
        list[str] | None, typer.Option(help="Only this one; may stand several times.")
    ] = None,
    rev: Annotated[
        list[str] | None,
        typer.Option(help="Commit that experiments started from; by default the current one."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the table and the figures.")] = Path(
        "sweep"
    ),
) -> None:
    """Say which parameters of the finished experiments did best, by table and figure."""
    from cifarpipe.cli.experiments import read_experiments
    from cifarpipe.cli.sweep import conclusions, draw_sweep, markdown, sweep_of
    from cifarpipe.figures.sheets import save_figure
    from cifarpipe.store.outputs import write_text

    experiments = read_experiments(rev or [])
    known = dict.fromkeys(name for each in experiments for name in each.metrics)
    if unknown := [name for name in model or [] if name not in known]:
        raise UserError(
            f"--model is {unknown[0]!r}; allowed, since there are results of them: "
            f"{', '.join(known) or 'none yet: run `dvc exp run` first'}."
        )
    parts = []
    for name in model or known:
        found = sweep_of(name, experiments)
        if not found.varied and not model:
            continue
        part = f"## {name}\n\n{' '.join(conclusions(found))}\n\n{markdown(found)}"
        if found.varied:
            save_figure(draw_sweep(found), out / f"{name}.png")
            part += f"\n![{name}: accuracy by {', '.join(found.varied)}]({name}.png)\n"
        parts.append(part)
        print(part)
    if not parts:
        raise UserError(
            f"{len(experiments)} runs are finished, and no parameter differs between them.\n"
            f"Run some first: dvc exp run --queue -S 'lr=choice(0.003,0.01,0.03)', then dvc queue "
            f"start, and again when they are done."
        )
    write_text(out / "sweep.md", "\n".join(parts))
    print(f"written: {out / 'sweep.md'}")


@app.command()
def review(
    base: Annotated[str, typer.Argument(help="Branch, tag, commit or experiment.")] = "main",
    out: Annotated[Path, typer.Option(help="Folder for the comment and its pictures.")] = Path(
        "review"
    ),
) -> None:
    """Compare what is here with another revision: a comment in Markdown, with pictures."""
    from cifarpipe.cli.review.changes import compare_models
    from cifarpipe.cli.review.page import draw_montages, render_review
    from cifarpipe.cli.review.snapshot import Revision, Workspace, read_snapshot
    from cifarpipe.store.outputs import write_text

    before, after = read_snapshot(Revision(base)), read_snapshot(Workspace())
    changes = compare_models(before, after)
    pictures = draw_montages(changes, before, after, out)
    text = render_review(before, after, changes, pictures)
    write_text(out / "review.md", text)
    print(text)
    print(f"written: {out / 'review.md'}", file=sys.stderr)


def check_out(out: Path, picture: Path) -> None:
    """Refuse, by `UserError`, to write what is no PNG, or over the picture itself."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out is {out}; allowed: a name that ends in .png.")
    try:
        same = out.samefile(picture)
    except OSError:  # one of them is not there
        return
    if same:
        raise UserError(f"{out} is the picture itself, which stays as it is.\nName another --out.")


def prediction_table(found: "Answer", top: int) -> str:
    """Return the `top` most probable classes and their probabilities, as lines of text."""
    rows = list(zip(found.classes, found.probabilities, strict=True))
    if rest := rows[top:]:
        name = "1 other" if len(rest) == 1 else f"{len(rest)} others"
        rows = [*rows[:top], (name, sum(probability for _, probability in rest))]
    width = max(len("class"), *(len(name) for name, _ in rows))
    lines = [f"{'class':{width}}  probability"]
    for name, probability in rows:
        bar = "█" * round(BAR * probability)
        lines.append(f"{name:{width}}  {probability:11.4f}  {bar}".rstrip())
    return "\n".join(lines)
