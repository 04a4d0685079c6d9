"""`cifarpipe predict`: classify image files, and write a table."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.cli.out_option import check_output
from cifarpipe.config.errors import UserError
from cifarpipe.data.names import escaped, is_ignored
from cifarpipe.store.outputs import write_csv

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SHOWN = 10  # unreadable files that are listed
DIGITS = 6  # of a probability


def predict_files(paths: Sequence[str], model: str, out: Path | None) -> bool:
    """Classify image files, and write a CSV with a row for each.

    Args:
        paths: Files, folders (with all that they contain) or patterns such as `photos/*.jpg`.
        model: Name of a trained entry of `models`.
        out: The CSV to write; None: named after the model.

    Returns:
        Whether all files could be read.

    Raises:
        UserError: There is no file, or the model or `out` can't be used.
    """
    from cifarpipe.config.reader import load_params

    params = load_params()
    params.model(model)
    out = out or Path(f"predictions_{model}.csv")
    check_output(out, ".csv")
    files = find_files(paths, besides=out)

    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.store.paths import artifact

    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    unreadable: list[str] = []
    blocks = readable(files, origin.image_size, params.evaluate.batch_size, unreadable)

    import numpy as np
    import torch

    from cifarpipe.networks.normalize import normalize

    device = next(network.parameters()).device
    mean, std = origin.normalization(device)
    names: list[str] = []
    logits: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for part, pixels in blocks:
            names += [escaped(file) for file in part]
            inputs = normalize(torch.from_numpy(pixels).to(device), mean, std)
            logits.append(network(inputs).float().cpu().numpy())
    if names:
        table = prediction_rows(names, np.concatenate(logits), origin.classes)
        write_csv(out, table)
        counts = table["class"].value_counts()
        print(", ".join(f"{count} {name}" for name, count in counts.items()))
        print(f"Predictions of {model} for {len(table)} of {len(files)} files: {out}")
    else:
        print(f"None of {len(files)} files could be read; {out} was not written.")
    for line in unreadable[:SHOWN]:
        print(f"not read: {line}", file=sys.stderr)
    if len(unreadable) > SHOWN:
        print(f"… and {len(unreadable) - SHOWN} more", file=sys.stderr)
    return not unreadable


def find_files(paths: Sequence[str], *, besides: Path) -> list[Path]:
    """Return the files that paths and patterns name, each once, those of a folder sorted.

    Hidden files and folders inside a folder are left out; links to folders are followed.

    Args:
        paths: Files, folders or patterns.
        besides: A file that is no input.

    Raises:
        UserError: A path names no file, or `besides` is the only one.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        exact = bool(text) and os.path.lexists(path)
        matches = [path] if exact else [Path(each) for each in sorted(_matching(text))]
        files = [file for each in matches for file in _files_in(each)]
        if not files:
            what = "has no files" if matches else "does not exist"
            raise UserError(
                f"{text or repr(text)} {what}.\n"
                f"Expected: image files, folders, or a pattern such as 'photos/*.jpg'."
            )
        found |= dict.fromkeys(files)
    files = list(found)
    if besides.exists():
        files = [file for file in found if not (file.exists() and file.samefile(besides))]
    if not files:
        raise UserError(
            f"{besides} is the output file, and no other file was given.\n"
            f"Expected: image files or folders."
        )
    return files


def _matching(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  (may be absolute)


def _files_in(path: Path) -> list[Path]:
    """Return a file itself, or all files in a folder, sorted."""
    if not path.is_dir():
        return [path]
    found, seen = [], set()
    for folder, inside, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link leads back
            inside.clear()
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not is_ignored(name)]
        found += [Path(folder, name) for name in names if not is_ignored(name)]
    return sorted(found)


def readable(
    files: Sequence[Path], size: int, count: int, unreadable: list[str]
) -> "Iterator[tuple[list[Path], NDArray[np.uint8]]]":
    """Yield files and their pictures `[N, size, size, 3]`, at most `count` at a time.

    Args:
        files: Image files.
        size: Height and width of the network's images.
        count: Pictures at a time.
        unreadable: Gets a line for each file that can't be used.
    """
    import numpy as np

    from cifarpipe.data.decoding import decode_all

    part: list[Path] = []
    pictures: list[NDArray[np.uint8]] = []
    for file, picture in zip(files, decode_all(files, size), strict=True):
        if isinstance(picture, str):
            unreadable.append(f"{escaped(file)}: {picture}")
            continue
        part.append(file)
        pictures.append(picture)
        if len(part) == count:
            yield part, np.stack(pictures)
            part, pictures = [], []
    if part:
        yield part, np.stack(pictures)


def prediction_rows(
    names: Sequence[str], logits: "NDArray[np.float32]", classes: Sequence[str]
) -> "pd.DataFrame":
    """Return a row per file.

    Returns:
        Columns `file`, `class`, `confidence` (the probability of that class), and the probability
        of each class, under `p_` and its name.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import softmax

    probabilities = softmax(logits.astype(np.float64), axis=1).round(DIGITS)
    predicted = logits.argmax(axis=1)
    table = pd.DataFrame(
        {
            "file": list(names),
            "class": [classes[label] for label in predicted],
            "confidence": probabilities[np.arange(len(logits)), predicted],
        }
    )
    columns = [f"p_{name}" for name in classes]
    return pd.concat([table, pd.DataFrame(probabilities, columns=columns)], axis=1)
