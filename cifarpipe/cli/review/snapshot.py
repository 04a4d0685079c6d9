"""The results of a revision, read from git and DVC without checking anything out."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cifarpipe.cli.experiments import flatten
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import PARAMS_FILE
from cifarpipe.results.digests import read_digests
from cifarpipe.results.maps import Explanations, load_explanations
from cifarpipe.results.metrics import Metrics, read_metrics
from cifarpipe.results.tables import parse_table
from cifarpipe.store.outputs import short_digest
from cifarpipe.store.paths import DATASET_CARD, artifact, model_report


@dataclass(frozen=True)
class ModelSnapshot:
    """The results of one model."""

    metrics: Metrics
    """Of the predictions, and with the prefix `gradcam.` of the explanations."""
    confusion: pd.DataFrame
    """Columns `true`, `predicted`, `images`."""
    predictions: pd.DataFrame | None
    """A row per test image; None if DVC has the table neither here nor in a remote."""
    read_maps: Callable[[], Explanations | None] = lambda: None
    """Reads the maps of all test images; None if they are missing, or of another run."""


@dataclass(frozen=True)
class Snapshot:
    """The results of one revision, or of the workspace."""

    name: str
    params: Mapping[str, Any]
    """By dotted name."""
    data: str | None
    """Short fingerprint of the prepared data: if it is equal, an index is the same image."""
    models: Mapping[str, ModelSnapshot]


class Workspace:
    """The files of the workspace."""

    name = "workspace"

    def text(self, path: Path) -> str | None:
        """Return a file's content, or None if there is no such file."""
        # As bytes: a name may contain a carriage return.
        return path.read_bytes().decode() if path.is_file() else None

    def artifact(self, path: Path) -> bytes | None:
        """Return the content of a file that DVC stores, or None if it is missing."""
        return path.read_bytes() if path.is_file() else None


class Revision:
    """The files of a commit: small ones from git, others from DVC's cache or remote."""

    def __init__(self, name: str) -> None:
        """Find the commit of a branch, a tag, a commit or, if there is none, an experiment.

        Raises:
            UserError: There is no such revision, or several experiments have this name.
        """
        done = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if done.returncode:
            done = _git("rev-parse", "--verify", "--quiet", f"{find_experiment(name)}^{{commit}}")
        if done.returncode:
            raise UserError(
                f"{name!r} is not a revision of this repository; allowed: a branch, a tag, a "
                f"commit or an experiment.\n`git branch -a` and `dvc exp list` list them."
            )
        self.name, self.commit = name, done.stdout.strip()

    def text(self, path: Path) -> str | None:
        """Return a file's content, or None if the commit does not have it."""
        done = _git("show", f"{self.commit}:./{path.as_posix()}")
        return None if done.returncode else done.stdout

    def artifact(self, path: Path) -> bytes | None:
        """Return the content of a file that DVC stores, or None if DVC can't get it."""
        import dvc.api  # a second

        try:
            content: bytes = dvc.api.read(path.as_posix(), rev=self.commit, mode="rb")
        except Exception as error:  # a remote's package may raise anything
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if "neither as a DVC output nor" in reason:  # also said of outputs that are not cached
                reason = "not in DVC's cache; `dvc fetch --all-commits` gets it from a remote"
            print(f"note: {path} of {self.name}: {reason}", file=sys.stderr)
            return None
        return content


def find_experiment(name: str) -> str:
    """Return the reference of an experiment: of several, the one that began at HEAD.

    If there is none, `name` itself is returned.

    Raises:
        UserError: There are several, and none of them began at HEAD.
    """
    # refs/exps/<start of the commit at which it began>/<rest of that commit>/<name>
    references = _git("for-each-ref", "--format=%(refname)", "refs/exps").stdout.splitlines()
    found = [each for each in references if each.split("/", 4)[4:] == [name]]
    head = _git("rev-parse", "HEAD").stdout.strip()
    here = [each for each in found if "".join(each.split("/")[2:4]) == head]
    if len(found) > 1 and not here:
        listed = "".join(f"\n  {each}" for each in found)
        raise UserError(f"{len(found)} experiments are named {name!r}. Name one of:{listed}")
    return next(iter(here or found), name)


def read_snapshot(files: Workspace | Revision) -> Snapshot:
    """Read everything that a review compares.

    Raises:
        UserError: There are no parameters or no metrics.
    """
    with parsing(PARAMS_FILE, files.name):
        text = files.text(PARAMS_FILE)
        params = None if text is None else YAML(typ="safe").load(text)
    if not isinstance(params, dict) or not isinstance(params.get("models"), dict):
        raise UserError(f"{files.name} has no {PARAMS_FILE} with `models`: nothing to compare.")
    found = {name: read_model(files, name) for name in params["models"]}
    models = {name: model for name, model in found.items() if model is not None}
    if not models:
        raise UserError(
            f"{files.name} has no metrics (reports/models/*/metrics.csv).\n"
            f"Run `dvc repro` there and commit what it writes."
        )
    card = files.text(DATASET_CARD)
    with parsing(DATASET_CARD, files.name):
        fingerprint = None if card is None else json.loads(card)["dataset"].get("fingerprint")
    return Snapshot(files.name, flatten(params), fingerprint, models)


@contextmanager
def parsing(path: Path, revision: str) -> Iterator[None]:
    """Turn errors about a file's content into a `UserError` that names it."""
    try:
        yield
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} of {revision} can't be read: {reason}.\n"
            f"If it has conflict markers, resolve them; if it is of an older version of the code, "
            f"choose a later revision; otherwise restore it, for instance with `git checkout`."
        ) from None


def read_model(files: Workspace | Revision, name: str) -> ModelSnapshot | None:
    """Read the results of one model; None if it was not evaluated."""
    paths = [model_report(name, file) for file in ("metrics.csv", "confusion.csv", "gradcam.csv")]
    table_of_metrics, confusion, explanations = map(files.text, paths)
    if table_of_metrics is None or confusion is None:
        return None
    with parsing(paths[0], files.name):
        metrics = read_metrics(io.StringIO(table_of_metrics))
    with parsing(paths[1], files.name):
        counts = parse_table(io.StringIO(confusion, newline=""))
        counts["images"] += 0  # numbers
    if explanations is not None:
        with parsing(paths[2], files.name):
            quality = read_metrics(io.StringIO(explanations))
        metrics |= {f"gradcam.{key}": metric for key, metric in quality.items()}
    path = artifact(name, "predictions.csv")
    content = files.artifact(path)
    with parsing(path, files.name):
        table = None if content is None else parse_table(io.StringIO(content.decode(), newline=""))
    if table is not None and not _agree(table, counts):
        # Checked out by git, but not by DVC.
        print(f"note: predictions and metrics of {name} differ: run `dvc checkout`.",
              file=sys.stderr)  # fmt: skip
        table = None
    return ModelSnapshot(metrics, counts, table, partial(read_maps, files, name))


def read_maps(files: Workspace | Revision, name: str) -> Explanations | None:
    """Read the maps of one model; None if they are missing, or not those of its metrics."""
    content = files.artifact(artifact(name, "cams.npz"))
    if content is None:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cams.npz"
        path.write_bytes(content)
        digest = _digest_of_maps(files, name)
        if digest != short_digest(path):
            reason = "and metrics differ: run `dvc checkout`" if digest else "have no digest"
            print(f"note: maps of {name} {reason}.", file=sys.stderr)
            return None
        return load_explanations(path)


def _digest_of_maps(files: Workspace | Revision, name: str) -> str | None:
    path = model_report(name, "explained.csv")
    text = files.text(path)
    with parsing(path, files.name):
        return None if text is None else read_digests(io.StringIO(text)).get("cams.npz")


def _agree(predictions: pd.DataFrame, confusion: pd.DataFrame) -> bool:
    """Return whether a predictions table has the given confusions."""
    counted = predictions.value_counts(["true", "predicted"])
    expected = confusion.set_index(["true", "predicted"]).images
    return counted.to_dict() == expected[expected > 0].to_dict()


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git; its output keeps its line ends."""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
