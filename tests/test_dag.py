"""dvc.yaml against the code and the parameters: what it lists, and what reruns when."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifarpipe.params_file import load_params

ROOT = Path(__file__).parents[1]
DAG = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = load_params(ROOT / "params.yaml")
MODELS = list(PARAMS.models)
PER_MODEL = ("train", "evaluate", "misclassified", "gradcam")
BUILD = "cifarpipe/models/build.py"


# What each stage lists


def definition(stage: str, model: str | None) -> dict[str, Any]:
    """Return a stage's definition with its templates filled in."""
    raw = DAG["stages"][stage]
    text = yaml.safe_dump(raw.get("do", raw))
    if model:
        text = text.replace("${key}", model).replace("${item.arch}", PARAMS.models[model].arch)
    return yaml.safe_load(text)


def local_imports(file: Path) -> Iterator[str]:
    """Yield the files of this project that `file` imports, anywhere but for types alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: write imports in full"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = Path(*name.split(".")).with_suffix(".py")
            if name.split(".")[0] in {"cifarpipe", "stages"} and (ROOT / path).is_file():
                yield path.as_posix()


def reached(stage: str, arch: str | None) -> set[str]:
    """Return all files that a stage reaches; of the architectures only the one asked for."""
    found: set[str] = set()
    waiting = [f"stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for other in local_imports(ROOT / file):
            of_arch = Path(other).parent.name == "models" and Path(other).stem in ARCHITECTURES
            if not (of_arch and Path(other).stem != arch):
                waiting.append(other)
    return found


ARCHITECTURES = {entry.arch for entry in PARAMS.models.values()}
EVERY_STAGE = [("prepare", None), ("report", None), *((s, m) for s in PER_MODEL for m in MODELS)]


@pytest.mark.parametrize(("stage", "model"), EVERY_STAGE)
def test_each_stage_lists_exactly_the_code_it_reaches(stage: str, model: str | None) -> None:
    listed = {dep for dep in definition(stage, model)["deps"] if dep.endswith(".py")}
    assert listed == reached(stage, PARAMS.models[model].arch if model else None)


def test_packages_hold_no_code_of_their_own() -> None:
    """Or it would belong to the lists above."""
    for file in ROOT.glob("cifarpipe/**/__init__.py"):
        assert len(ast.parse(file.read_text(encoding="utf-8")).body) == 1


def test_templates_are_listed_where_they_are_used() -> None:
    templates = {path.parent for path in ROOT.glob("cifarpipe/report/**/*.j2")}
    assert templates
    listed = set(definition("report", None)["deps"])
    assert {path.relative_to(ROOT).as_posix() for path in templates} <= listed


def test_nothing_imports_stages_but_stages() -> None:
    for file in ROOT.glob("cifarpipe/**/*.py"):
        assert not any(name.startswith("stages") for name in local_imports(file)), file


def test_every_section_of_the_parameters_belongs_to_a_stage() -> None:
    listed = {param for stage, model in EVERY_STAGE for param in definition(stage, model)["params"]}
    assert set(type(PARAMS).model_fields) <= listed


def test_figures_of_all_models_name_all_models() -> None:
    for plot in DAG["plots"]:
        ((_, options),) = plot.items()
        assert list(options["y"]) == [f"reports/models/{name}/history.csv" for name in MODELS]


# What reruns when: DVC decides, stubs stand for the stages

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
"""Makes each change and takes it back, and prints which stages ran a command each time."""
import json, pathlib, sys
from dvc.repo import Repo

log = pathlib.Path("runs.log")

def repro():
    log.write_text("")
    with Repo(".") as repo:
        repo.reproduce()
    return log.read_text().split()

runs = [[repro(), repro()]]
for name, old, new in json.load(sys.stdin):
    file = pathlib.Path(name)
    before = file.read_text(encoding="utf-8")
    assert old in before, (name, old)
    file.write_text(before.replace(old, new, 1), encoding="utf-8")
    there = repro()
    file.write_text(before, encoding="utf-8")
    runs.append([there, repro()])
print(json.dumps(runs), file=sys.stderr)
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
    ("cifarpipe/training.py", '"""', '"""Edited. ', every()),
    ("cifarpipe/models/vit.py", '"""', '"""Edited. ', of(*VITS)),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[list[set[str]]]:
    """What ran: at first and again, then for each change and after it was taken back."""
    folder = tmp_path_factory.mktemp("stubbed")
    for name in ("cifarpipe", "stages", "data/baselines", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "stub.py").write_text(STUB)
    dag = (folder / "dvc.yaml").read_text(encoding="utf-8")
    dag = dag[: dag.index("\n# All models in one figure")]  # that names all five
    (folder / "dvc.yaml").write_text(dag.replace("python -m stages.", f"{sys.executable} stub.py "))
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    start, end = params.index("  resnet18_ln:"), params.index("evaluate:")
    (folder / "params.yaml").write_text(params[:start] + params[end:], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        input=json.dumps([change[:3] for change in CHANGES]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [[set(run) for run in pair] for pair in json.loads(done.stderr.splitlines()[-1])]


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
