"""`cifarpipe explain`: classify image files, and show where the network finds evidence."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.cli.out_option import check_output
from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.results.maps import Maps

MAPPED = 3  # classes whose maps are drawn
BAR = 25  # characters of a probability of 1


@dataclass(frozen=True)
class ExplainedImage:
    """The predictions of a network for one image, with maps of the first ones."""

    classes: list[str]
    """All classes, the most probable first."""
    probabilities: "NDArray[np.float64]"
    """`[classes]`, in that order."""
    maps: "Maps"
    """`[mapped, h, w]` raw maps of the first classes, comparable with each other."""


def explain_files(
    paths: Sequence[Path], model: str, *, method: str | None, out: Path | None, top: int
) -> bool:
    """Print the predictions for image files, and draw their maps.

    Args:
        paths: The image files.
        model: Name of a trained entry of `models`.
        method: How to compute the maps; None takes `gradcam.method`.
        out: The PNG to write, or for several images the folder of their PNGs; None: named after
            image and model, here.
        top: Number of predictions to print.

    Returns:
        Whether all images could be used. Of several, one that is damaged does not stop the others.

    Raises:
        UserError: A file is missing, the only image is damaged, or the model, the method or `out`
            can't be used.
    """
    from cifarpipe.config.reader import load_params
    from cifarpipe.data.picture import PictureError, check_file

    params = load_params()
    params.model(model)
    outputs = output_files(paths, model, out)
    for path in paths:  # before torch is imported, which takes seconds
        if len(paths) == 1 or not path.exists():
            check_file(path)

    from cifarpipe.explanations.explainer import Explainer
    from cifarpipe.explanations.methods import methods_for
    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.store.paths import artifact

    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    arch = origin.architecture["arch"]
    method = method or params.gradcam.method.get(arch)
    allowed = methods_for(network)
    if method is None:  # the entry had another architecture when it was trained
        raise UserError(
            f"{model} was trained as a {arch}, for which params.yaml has no `gradcam.method`.\n"
            f"Choose one with --method ({', '.join(allowed)}), or run `dvc repro`."
        )
    if method not in allowed:
        raise UserError(
            f"--method is {method!r}; allowed for {model} (arch {arch}): {', '.join(allowed)}.\n"
            f"Use one of these, or leave it out to use that of params.yaml."
        )
    explainer = Explainer(network, origin, method, params.gradcam.batch_size)
    damaged = []
    for path, output in outputs.items():
        try:
            explain_file(path, explainer, output, top=top, opacity=params.gradcam.opacity)
        except PictureError as error:
            if len(outputs) == 1:
                raise
            damaged.append(f"not explained: {path} {error.reason}")
        else:
            print(f"\nMaps of {model} by {method}: {output}")
            if len(outputs) > 1:
                print()
    for line in damaged:
        print(line, file=sys.stderr)
    return not damaged


def explain_file(
    path: Path, explainer: "Explainer", out: Path, *, top: int, opacity: float
) -> None:
    """Print the predictions for one image file, and draw their maps.

    Args:
        path: The image file.
        explainer: Holds the network and the method.
        out: The PNG to write.
        top: Number of predictions to print.
        opacity: Of the maps over the image.

    Raises:
        PictureError: The image can't be used.
        UserError: `out` can't be written.
    """
    from cifarpipe.data.picture import open_picture
    from cifarpipe.figures.explanations import draw_predictions
    from cifarpipe.figures.layout import save_figure

    picture = open_picture(path).resized(explainer.origin.image_size)
    found = explain_image(explainer, picture.pixels, MAPPED if explainer.class_specific else 1)
    print(f"{path}: {picture.found};\n{', '.join(picture.steps) or 'used as it is'}.\n")
    print(prediction_table(found.classes, found.probabilities.tolist(), top))
    figure = draw_predictions(
        picture.pixels,
        path.name.encode(errors="replace").decode(),  # it may not be valid text
        found.classes,
        found.probabilities,
        found.maps,
        class_specific=explainer.class_specific,
        opacity=opacity,
        title=f"Predictions of {explainer.origin.name}, explained by {explainer.method}",
    )
    save_figure(figure, out)


def output_files(paths: Sequence[Path], model: str, out: Path | None) -> dict[Path, Path]:
    """Return the PNG to write for each image.

    Args:
        paths: The image files.
        model: Its name ends the default names.
        out: The option: a PNG for one image, a folder for several.

    Raises:
        UserError: `out` can't be used, or a PNG would be that of two images or an image itself.
    """
    paths = list(dict.fromkeys(paths))
    if len(paths) == 1:
        (path,) = paths
        found = {path: out or Path(f"{path.stem}_{model}.png")}
    else:
        if out and (out.suffix or out.is_file()):
            raise UserError(
                f"--out is {out}; allowed for several images: a folder whose name has no dot."
            )
        found = {path: (out or Path()) / f"{path.stem}_{model}.png" for path in paths}
    by_output: dict[Path, Path] = {}
    for path, output in found.items():
        if other := by_output.get(output):
            raise UserError(
                f"The maps of {other} and {path} would both be {output}.\n"
                f"Explain them one by one, with --out."
            )
        by_output[output] = path
        check_out(output, paths)
    return found


def explain_image(
    explainer: "Explainer", pixels: "NDArray[np.uint8]", mapped: int
) -> ExplainedImage:
    """Classify an image and explain its most probable classes.

    Args:
        explainer: Holds the network and the method.
        pixels: `[S, S, 3]`, in the network's size.
        mapped: Number of classes to explain; all, if there are fewer.
    """
    import numpy as np
    import torch

    with torch.no_grad():
        logits = explainer.model(explainer.normalized(pixels[None]))[0]
    probabilities = logits.double().softmax(dim=0).cpu().numpy()
    order = np.argsort(-probabilities, kind="stable")
    first = order[:mapped]
    maps = explainer.maps(np.repeat(pixels[None], len(first), axis=0), first)
    names = [explainer.origin.classes[label] for label in order]
    return ExplainedImage(names, probabilities[order], maps)


def check_out(out: Path, pictures: Sequence[Path]) -> None:
    """Check that `out` is a PNG that can be written and none of the images.

    Raises:
        UserError: It is not.
    """
    check_output(out, ".png")
    for picture in pictures:
        try:
            same = out.samefile(picture)
        except OSError:  # one of them does not exist
            continue
        if same:
            raise UserError(f"{out} is an image itself.\nGive another --out.")


def prediction_table(classes: Sequence[str], probabilities: Sequence[float], top: int) -> str:
    """Return the `top` most probable classes with their probabilities, as lines of text."""
    rows = list(zip(classes, probabilities, strict=True))
    if rest := rows[top:]:
        name = "1 other" if len(rest) == 1 else f"{len(rest)} others"
        rows = [*rows[:top], (name, sum(probability for _, probability in rest))]
    width = max(len("class"), *(len(name) for name, _ in rows))
    lines = [f"{'class':{width}}  probability"]
    for name, probability in rows:
        bar = "█" * round(BAR * probability)
        lines.append(f"{name:{width}}  {probability:11.4f}  {bar}".rstrip())
    return "\n".join(lines)
