"""Which change reruns which stages: DVC decides, and stubs stand in for the stages."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cifarpipe.cli.experiments import flatten
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params
from tests.support.params_text import CONTENT, EXAMPLE, ROOT
from tests.support.stubs import STUBBED, copy_with_stubs

# One process for all changes: importing DVC takes longer than most of its runs.
DRIVER = '''
"""Runs everything, then some changes and their undoing; prints the stages that ran each time. Then
prints, for all other changes, the stages that DVC would run: the changed ones and what follows."""
import json, pathlib, sys
import networkx, yaml
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

log = pathlib.Path("runs.log")

def repro():
    log.write_text("")
    with Repo(".") as repo:
        repo.reproduce()
    return log.read_text().split()

def edit(edits):
    """Apply edits and return the former contents."""
    before = {}
    for name, old, new in edits:
        file = pathlib.Path(name)
        text = file.read_text(encoding="utf-8") if old else ""
        before.setdefault(name, text if old else None)
        assert old in text, (name, old)
        file.write_text(text.replace(old, new, 1) if old else new, encoding="utf-8")
    return before

def undo(before):
    for name, text in before.items():
        if text is None:
            pathlib.Path(name).unlink()
        else:
            pathlib.Path(name).write_text(text, encoding="utf-8")

def with_following(repo, changed):
    follow = [networkx.ancestors(repo.index.graph, stage) for stage in changed]
    return sorted({stage.addressing for stage in changed.union(*follow)} - {CHECK})

def would_run(edits):
    former = edit(edits)
    with Repo(".") as repo, repo.lock:
        changed = {stage for stage in repo.index.stages if stage.changed()}
        found = with_following(repo, {stage for stage in changed if stage.addressing != CHECK})
    undo(former)
    return found

def would_run_value(repo, key, value):
    params = yaml.safe_load(before)
    *sections, last = key.split(".")
    section = params
    for name in sections:
        section = section[name]
    section[last] = value
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    # Only the parameters have changed, so that DVC need not look at the other files again.
    changed = {
        stage for stage in repo.index.stages
        if any(dep.status() for dep in stage.deps if isinstance(dep, ParamsDependency))
    }
    return with_following(repo, changed)

CHECK = "data/dvc.yaml:check"
given = json.load(sys.stdin)
runs = [[repro(), repro()]]
for edits in given["run"]:
    former = edit(edits)
    there = repro()
    undo(former)
    runs.append([there, repro()])
repro()
changes = [would_run(edits) for edits in given["changes"]]
file = pathlib.Path("params.yaml")
before = file.read_text(encoding="utf-8")
with Repo(".") as repo:
    values = [would_run_value(repo, key, value) for key, value in given["values"]]
print(json.dumps([runs, changes, values]), file=sys.stderr)
'''

VITS = ("vit", "vit_t2t")
PARAMS = load_params(EXAMPLE)
# What depends on each stage of a model, itself included.
FOLLOWING = {
    "train": ("train", "evaluate", "misclassified", "gradcam", "figures"),
    "evaluate": ("evaluate", "misclassified", "gradcam", "figures"),
    "misclassified": ("misclassified", "figures"),
    "gradcam": ("gradcam", "figures"),
    "figures": ("figures",),
}


def of(*models: str, since: str = "train") -> set[str]:
    """Return the stages of some models from one stage on, and the report."""
    return {f"{step}@{model}" for step in FOLLOWING[since] for model in models} | {"report"}


def every(since: str = "train") -> set[str]:
    return of(*STUBBED, since=since)


ALL = every() | {"prepare"}
ENTRY = yaml.safe_dump({"new": PARAMS.models["vit"].given()}, sort_keys=False)
NEW_ENTRY = "models:\n" + "".join(f"  {line}\n" for line in ENTRY.splitlines())
DOCSTRING = ('"""', '"""Edited. ')
# Name → edits (file, old text, new text; a new file has no old text), stages that run.
CHANGES: dict[str, tuple[list[tuple[str, str, str]], set[str]]] = {
    "lr": ([("params.yaml", "lr: 0.01", "lr: 0.005")], every()),
    "seed": ([("params.yaml", "seed: 0", "seed: 1")], ALL),
    "depth": ([("params.yaml", "depth: 6", "depth: 5")], of("vit")),
    "bins": (
        [("params.yaml", "calibration_bins: 15", "calibration_bins: 10")],
        every("evaluate"),
    ),
    "count": ([("params.yaml", "count: 20", "count: 30")], every("misclassified")),
    "opacity": ([("params.yaml", "opacity: 0.6", "opacity: 0.5")], every("figures")),
    "method": (
        [("params.yaml", "method: {vit: libragrad", "method: {vit: layercam")],
        of(*VITS, since="gradcam"),
    ),
    "title": ([("params.yaml", "title: CIFAR-10", "title: Our CIFAR-10")], {"report"}),
    "comment": ([("params.yaml", "# base learning", "# the base learning")], set()),
    "entry": ([("params.yaml", "models:\n", NEW_ENTRY)], of("new")),
    "architecture": (
        [
            ("cifarpipe/models/tiny.py", "", '"""A new architecture."""\n'),
            ("cifarpipe/models/build.py", *DOCSTRING),
            ("cifarpipe/config/architectures.py", *DOCSTRING),
            ("params.yaml", "models:\n", NEW_ENTRY.replace("arch: vit", "arch: tiny")),
            ("params.yaml", "method: {vit:", "method: {tiny: gradcam, vit:"),
        ],
        of("new"),
    ),
    "config": (
        [(f"cifarpipe/config/{name}.py", *DOCSTRING) for name in ("schema", "errors")],
        set(),
    ),
    "build": ([("cifarpipe/models/build.py", *DOCSTRING)], set()),
    "cli": ([("cifarpipe/cli/sweep/settings.py", *DOCSTRING)], set()),
    "vit": ([("cifarpipe/models/vit.py", *DOCSTRING)], of(*VITS)),
    "augment": ([("cifarpipe/augment/color.py", *DOCSTRING)], every()),
    "training": ([("cifarpipe/training/loop.py", *DOCSTRING)], every()),
    "evaluation": ([("cifarpipe/evaluation/slices.py", *DOCSTRING)], every("evaluate")),
    "explanations": ([("cifarpipe/explanations/quality.py", *DOCSTRING)], every("gradcam")),
    "figures": ([("cifarpipe/figures/layout.py", *DOCSTRING)], every("figures")),
    "report": ([("cifarpipe/report/pages.py", *DOCSTRING)], {"report"}),
    "template": ([("cifarpipe/report/templates/page.css", ":root", " :root")], {"report"}),
    "raw images": ([("data/source.json", "{}", "{changed}")], ALL),
}  # fmt: skip


def candidates(value: Any) -> Iterator[Any]:
    """Yield values like this one, some of which may be allowed."""
    match value:
        case bool():
            yield not value
        case int() | float():
            numbers = (value * 2, value / 2, value + 1, value - 1, value + 2, value + 0.1)
            yield from (*numbers, value // 2, 0.5)
        case str():
            yield from ("bf16", "last", "always", "sgd", "onecycle", "alternating", "random", "all",
                        "synthetic", "hirescam", "layercam", "mean", "Another title")  # fmt: skip
        case None:
            yield from (1000, 0.5, "somewhere")
        case list():
            yield from ([other, *value[1:]] for other in candidates(value[0])) if value else ()
        case dict():
            yield dict(list(value.items())[1:])


# Keys of which no other value is valid unless another key changes, too, or at all.
WITH_OTHERS = {
    "source": "synthetic", "folder": "elsewhere", "arch": "resnet18_ln", "name": "sgd",
    "tta": "none", "schedule": "onecycle", "init": "none",
}  # fmt: skip


def another_value(key: str) -> Any:
    """Return another, valid value of a key."""
    values = json.loads(json.dumps(CONTENT))
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    own = section[last]
    for candidate in candidates(own):
        section[last] = candidate
        with contextlib.suppress(ValidationError):
            Params.model_validate(values)
            if candidate != own:
                return candidate
    return WITH_OTHERS[last]


KEYS = [
    key
    for key in flatten(CONTENT | {"report": CONTENT["report"] | {"baselines": []}})
    if not key.startswith("models.") or key.split(".")[1] in STUBBED
]
VALUES = [[key, another_value(key)] for key in KEYS]
RERUNS = yaml.safe_load((ROOT / "tests/reruns.yaml").read_text(encoding="utf-8"))


def expected(key: str) -> set[str]:
    """Return the stages that the table names for a key."""
    since = next(since for pattern, since in RERUNS.items() if fnmatch(key, pattern))
    if since == "report":
        return {"report"}
    if since == "prepare":
        return ALL
    models: tuple[str, ...] = STUBBED
    if key.startswith("models."):
        models = (key.split(".")[1],)
    elif key.startswith("gradcam.method."):
        models = tuple(name for name in STUBBED if PARAMS.models[name].arch == key.split(".")[2])
    return of(*models, since=since)


RUN = ("opacity", "comment")  # these changes are really run


@dataclass(frozen=True)
class Driven:
    """What DVC did and would do."""

    runs: dict[str, list[set[str]]]
    """The stages that ran after a change, and after it was undone; `first`: at first, and again."""
    changes: dict[str, set[str]]
    """The stages that each change would run."""
    values: dict[str, set[str]]
    """The stages that another value of each key would run."""


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Driven:
    folder = tmp_path_factory.mktemp("stubbed")
    copy_with_stubs(folder)
    given = {
        "run": [CHANGES[name][0] for name in RUN],
        "changes": [edits for edits, _ in CHANGES.values()],
        "values": VALUES,
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs, changes, values = json.loads(done.stderr.splitlines()[-1])
    return Driven(
        {n: [set(run) for run in pair] for n, pair in zip(("first", *RUN), runs, strict=True)},
        {name: set(stages) for name, stages in zip(CHANGES, changes, strict=True)},
        {key: set(stages) for (key, _), stages in zip(VALUES, values, strict=True)},
    )


@pytest.mark.dvc
def test_first_run_runs_everything_and_second_nothing(driven: Driven) -> None:
    assert driven.runs["first"] == [ALL, set()]


@pytest.mark.dvc
@pytest.mark.parametrize("name", RUN)
def test_undone_change_computes_nothing(driven: Driven, name: str) -> None:
    there, back = driven.runs[name]
    assert there == CHANGES[name][1]
    assert back <= {"report"}  # fast, and stored in git: DVC does not cache it


@pytest.mark.dvc
@pytest.mark.parametrize("name", CHANGES)
def test_change_reruns_only_what_it_affects(driven: Driven, name: str) -> None:
    assert driven.changes[name] == CHANGES[name][1]


@pytest.mark.dvc
def test_every_key_reruns_the_stages_in_the_table(driven: Driven) -> None:
    """A key that no stage lists in `params` would rerun nothing."""
    assert len(driven.values) > 80
    assert driven.values == {key: expected(key) for key in KEYS}


def test_every_pattern_of_the_table_matches_a_key() -> None:
    assert {next(p for p in RERUNS if fnmatch(key, p)) for key in KEYS} == set(RERUNS)
