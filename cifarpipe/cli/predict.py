"""`cifarpipe predict`: classify image files, and write a table."""

import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifarpipe.config.errors import UserError

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
    files = find_files(paths)
    out = out or Path(f"predictions_{model}.csv")
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out is {out}; allowed: a name that ends in .csv.")

    from cifarpipe.networks.checkpoint import load_model
    from cifarpipe.networks.devices import pick_device
    from cifarpipe.store.outputs import write_csv
    from cifarpipe.store.paths import artifact

    network, origin = load_model(artifact(model, "model.safetensors"), pick_device())
    unreadable: list[str] = []
    blocks = readable(files, origin.image_size, params.evaluate.batch_size, unreadable)

    import numpy as np
    import torch

    from cifarpipe.networks.normalize import normalize

    device = next(network.parameters()).device
    mean, std = (torch.tensor(each, device=device) for each in (origin.mean, origin.std))
    names, logits = [], [np.empty((0, len(origin.classes)), np.float32)]
    with torch.inference_mode():
        for part, pixels in blocks:
            names += [str(file) for file in part]
            inputs = normalize(torch.from_numpy(pixels).to(device), mean, std)
            logits.append(network(inputs).float().cpu().numpy())
    table = prediction_rows(names, np.concatenate(logits), origin.classes)
    write_csv(out, table)
    counts = table["class"].value_counts()
    print(", ".join(f"{count} {name}" for name, count in counts.items()) or "no image")
    print(f"Predictions of {model} for {len(table)} of {len(files)} files: {out}")
    for line in unreadable[:SHOWN]:
        print(f"not read: {line}", file=sys.stderr)
    if len(unreadable) > SHOWN:
        print(f"… and {len(unreadable) - SHOWN} more", file=sys.stderr)
    return not unreadable


def find_files(paths: Sequence[str]) -> list[Path]:
    """Return the files that paths and patterns name, each once, those of a folder sorted.

    Hidden files and folders inside a folder are left out.

    Raises:
        UserError: A path names no file.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            files = [each for each in inside if each.is_file() and not _is_hidden(each, path)]
        elif path.exists():
            files = [path]
        else:
            matches = glob.glob(text, recursive=True)  # noqa: PTH207  (may be absolute)
            files = [Path(each) for each in sorted(matches)]
            files = [each for each in files if each.is_file()]
        if not files:
            what = "has no files" if path.is_dir() else "does not exist"
            raise UserError(f"{text} {what}.\nExpected: image files, folders, or a pattern.")
        found |= dict.fromkeys(files)
    return list(found)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


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
            unreadable.append(f"{file}: {picture}")
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
