"""What reruns when: DVC decides, stubs stand for the stages."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cifarpipe.cli.experiments import flatten
from cifarpipe.config.schema import Params
from tests.support.dag_setting import PARAMS, PER_MODEL, ROOT

STUB = '''
"""Writes every output of a stage: a hash of its dependencies and of the parameters it lists."""
import hashlib, pathlib, sys, yaml

stage, model = sys.argv[1], (sys.argv[2:] or [""])[0]
with open("runs.log", "a") as log:
    log.write(f"{stage}@{model}\\n" if model else f"{stage}\\n")
params = yaml.load(open("params.yaml"), yaml.CSafeLoader)
raw = yaml.load(open("dvc.yaml"), yaml.CSafeLoader)["stages"][stage]
text = repr(raw.get("do", raw)).replace("${key}", model)
if model:
    text = text.replace("${item.arch}", params["models"][model]["arch"])
definition = eval(text)
digest = hashlib.sha256(f"{stage} {model}".encode())
for name in definition["params"]:
    value = params
    for part in name.split("."):
        value = value[part]
    digest.update(repr(value).encode())
for dep in map(pathlib.Path, definition["deps"]):
    for file in sorted(dep.rglob("*")) if dep.is_dir() else [dep]:
        digest.update(file.read_bytes() if file.is_file() else b"")
for kind in ("outs", "metrics", "plots"):
    for out in definition.get(kind, []):
        path = pathlib.Path(out if isinstance(out, str) else next(iter(out)))
        if path.name == "prepared":
            path = path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest.hexdigest())
'''

# One process for all changes: importing DVC takes longer than most of its runs.
DRIVER = '''
"""Makes each change and takes it back; prints which stages ran a command each time, and then, for
each new value of a key, which stages DVC would run: those that changed, and all that follow."""
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

def would_run(repo, key, value):
    params = yaml.safe_load(before)
    *sections, last = key.split(".")
    section = params
    for name in sections:
        section = section[name]
    section[last] = value
    file.write_text(yaml.safe_dump(params), encoding="utf-8")
    # No file has changed but that of the parameters, so DVC need not look at the others again.
    changed = {
        stage for stage in repo.index.stages
        if any(dep.status() for dep in stage.deps if isinstance(dep, ParamsDependency))
    }
    follow = [networkx.ancestors(repo.index.graph, stage) for stage in changed]
    return sorted(stage.addressing for stage in changed.union(*follow))

given = json.load(sys.stdin)
runs = [[repro(), repro()]]
for name, old, new in given["changes"]:
    file = pathlib.Path(name)
    before = file.read_text(encoding="utf-8")
    assert old in before, (name, old)
    file.write_text(before.replace(old, new, 1), encoding="utf-8")
    there = repro()
    file.write_text(before, encoding="utf-8")
    runs.append([there, repro()])
repro()
file = pathlib.Path("params.yaml")
before = file.read_text(encoding="utf-8")
with Repo(".") as repo:
    stages = [would_run(repo, key, value) for key, value in given["values"]]
print(json.dumps([runs, stages]), file=sys.stderr)
'''

STUBBED = ("vit", "vit_t2t", "convmixer")  # two of one architecture, one of another
VITS = ("vit", "vit_t2t")


def of(*models: str, since: str = "train") -> set[str]:
    """Return the stages of some models from one on, and the report."""
    steps = PER_MODEL[PER_MODEL.index(since) :]
    return {f"{step}@{model}" for step in steps for model in models} | {"report"}


def every(since: str = "train") -> set[str]:
    return of(*STUBBED, since=since)


ALL = every() | {"prepare"}
VIT_ENTRY = yaml.safe_dump({"vit": PARAMS.models["vit"].model_dump(mode="json")})
NEW_ENTRY = "models:\n" + "".join(
    f"  {line}\n" for line in VIT_ENTRY.replace("vit:", "new:", 1).splitlines()
)
# File, what stands there, what is put in its place, which stages run a command then.
CHANGES = [
    ("params.yaml", "lr: 0.01", "lr: 0.005", every()),
    ("params.yaml", "seed: 0", "seed: 1", ALL),
    ("params.yaml", "depth: 6", "depth: 5", of("vit")),
    ("params.yaml", "calibration_bins: 15", "calibration_bins: 10", every("evaluate")),
    ("params.yaml", "count: 20", "count: 30", every("misclassified")),
    ("params.yaml", "opacity: 0.6", "opacity: 0.5", every("gradcam")),
    (
        "params.yaml",
        "method: {vit: gradient_attention",
        "method: {vit: layercam",
        {"gradcam@vit", "gradcam@vit_t2t", "report"},
    ),
    ("params.yaml", "title: CIFAR-10", "title: Our CIFAR-10", {"report"}),
    ("params.yaml", "# base rate", "# the base rate", set()),
    ("params.yaml", "models:\n", NEW_ENTRY, of("new")),
    ("cifarpipe/report/pages.py", '"""', '"""Edited. ', {"report"}),
    ("cifarpipe/training/loop.py", '"""', '"""Edited. ', every()),
    ("cifarpipe/models/vit.py", '"""', '"""Edited. ', of(*VITS)),
]


# Every key of params.yaml, with another value that is valid


def candidates(value: Any) -> Iterator[Any]:
    """Yield values like this one, some of which may be allowed."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (
                value * 2,
                value / 2,
                value + 1,
                value - 1,
                value + 2,
                value + 0.1,
                value // 2,
                0.5,
            )
        case str():
            yield from ("bf16", "last", "always", "sgd", "onecycle", "none", "all", "synthetic",
                        "hirescam", "mean", "Another title")  # fmt: skip
        case None:
            yield from (1000, 0.5, "somewhere", {"factor": 0.5, "patience": 2})
        case list():
            yield from ([other, *value[1:]] for other in candidates(value[0])) if value else ()
            yield [*value, "rotate"]
        case dict():
            yield dict(list(value.items())[1:])


# Keys of which no other value is valid unless another key is changed with them.
WITH_OTHERS = {
    "source": "synthetic", "folder": "elsewhere", "arch": "resnet18_ln", "name": "sgd",
    "plateau": {"factor": 0.5, "patience": 2},
}  # fmt: skip


def another_value(key: str) -> Any:
    """Return a valid value of a key, unlike its own."""
    values = PARAMS.model_dump(mode="json")
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
    for key in flatten({**PARAMS.model_dump(mode="json"), "report": {
        **PARAMS.report.model_dump(mode="json", exclude={"baselines"}), "baselines": [],
    }})
    if not key.startswith("models.") or key.split(".")[1] in STUBBED
]  # fmt: skip
VALUES = [[key, another_value(key)] for key in KEYS]
RERUNS = yaml.safe_load((ROOT / "tests/reruns.yaml").read_text(encoding="utf-8"))


def expected(key: str) -> set[str]:
    """Return the stages that the table names for a key: the first pattern that fits it."""
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


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[set[str]]], list[set[str]]]:
    """What ran: at first and again, then for each change and after it was taken back.

    And what would run for another value of each key.
    """
    folder = tmp_path_factory.mktemp("stubbed")
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "stub.py").write_text(STUB)
    dag = (folder / "dvc.yaml").read_text(encoding="utf-8")
    dag = dag[: dag.index("\n# All models in one figure")]  # that names them all
    (folder / "dvc.yaml").write_text(dag.replace("python -m stages.", f"{sys.executable} stub.py "))
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    for first, after in (("  vit_mean:", "  vit_t2t:"), ("  resnet18_ln:", "evaluate:")):
        params = params[: params.index(first)] + params[params.index(after) :]
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        input=json.dumps({"changes": [change[:3] for change in CHANGES], "values": VALUES}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs, stages = json.loads(done.stderr.splitlines()[-1])
    return [[set(run) for run in pair] for pair in runs], [set(each) for each in stages]


@pytest.fixture(scope="module")
def runs(driven: tuple[list[list[set[str]]], list[set[str]]]) -> list[list[set[str]]]:
    return driven[0]


@pytest.mark.dvc
def test_all_runs_at_first_and_nothing_again(runs: list[list[set[str]]]) -> None:
    assert runs[0] == [ALL, set()]


@pytest.mark.dvc
@pytest.mark.parametrize("number", range(len(CHANGES)), ids=[f"{c[0]}: {c[2]}" for c in CHANGES])
def test_a_change_reruns_what_it_reaches_and_going_back_nothing(
    runs: list[list[set[str]]], number: int
) -> None:
    there, back = runs[number + 1]
    assert there == CHANGES[number][3]
    assert back <= {"report"}  # cheap, and kept in git alone: DVC does not cache it


@pytest.mark.dvc
def test_every_key_reruns_what_the_table_says(
    driven: tuple[list[list[set[str]]], list[set[str]]],
) -> None:
    """tests/reruns.yaml is that table; a key that is in no stage's `params` would rerun nothing."""
    assert len(VALUES) == len(driven[1]) > 100
    wrong = {
        key: sorted(stages ^ expected(key))
        for (key, _), stages in zip(VALUES, driven[1], strict=True)
        if stages != expected(key)
    }
    assert not wrong


def test_every_line_of_the_table_is_of_use() -> None:
    assert {next(p for p in RERUNS if fnmatch(key, p)) for key in KEYS} == set(RERUNS)
