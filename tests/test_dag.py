"""dvc.yaml against the code and the parameters: what each stage lists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from cifarpipe.cli.current import ALWAYS_RUN
from cifarpipe.config.architectures import ARCHITECTURES
from cifarpipe.store.paths import SOURCE_FILE
from cifarpipe.training.records import CODE
from tests.support.dag import CHECK, DAG, MODELS, PARAMS, PER_MODEL, ROOT, SINGLE, definition

EVERY_STAGE = [*((s, None) for s in SINGLE), *((s, m) for s in PER_MODEL for m in MODELS)]
# Code that shapes no result; no stage depends on it.
NEVER_LISTED = (
    "cifarpipe/__init__.py",
    "cifarpipe/models/__init__.py",
    "cifarpipe/models/build.py",
)


def local_imports(file: Path) -> Iterator[str]:
    """Yield the project's files that `file` imports, except for type annotations."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: write absolute imports"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = Path(*name.split(".")).with_suffix(".py")
            if name.split(".")[0] in {"cifarpipe", "stages"} and (ROOT / path).is_file():
                yield path.as_posix()


def reached(stage: str, arch: str | None) -> set[str]:
    """Return all files that a stage imports; of the architectures only the given one."""
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
    return {file for file in found if not never_listed(file)}


def never_listed(file: str) -> bool:
    return file in NEVER_LISTED or file.startswith("cifarpipe/config/")


def dependency(file: str) -> str:
    """Return what a stage lists for a file: its package, or the file of an architecture."""
    path = Path(file)
    return file if path.parent.name in {"models", "stages"} else "/".join(path.parts[:2])


@pytest.mark.thorough
@pytest.mark.parametrize(("stage", "model"), EVERY_STAGE)
def test_stage_lists_the_packages_it_imports(stage: str, model: str | None) -> None:
    deps = definition(stage, model)["deps"]
    files = reached(stage, PARAMS.models[model].arch if model else None)
    listed = {dep for dep in deps if dep.startswith(("stages", "cifarpipe"))}
    assert listed == set(map(dependency, files))


@pytest.mark.thorough
@pytest.mark.parametrize("model", MODELS)
def test_train_imports_every_file_it_lists(model: str) -> None:
    """An edit of a file that training does not use would retrain every model."""
    files = reached("train", PARAMS.models[model].arch)
    deps = [ROOT / dep for dep in definition("train", model)["deps"] if dep.startswith("cifar")]
    there = {file for dep in deps for file in (dep.rglob("*.py") if dep.is_dir() else [dep])}
    listed = {file.relative_to(ROOT).as_posix() for file in there if file.name != "__init__.py"}
    assert listed == {file for file in files if file.startswith("cifarpipe/")}


def test_resume_fingerprint_covers_the_code_of_train() -> None:
    model = f"cifarpipe/models/{PARAMS.models[MODELS[0]].arch}.py"
    ours = {f"cifarpipe/{name}" for name in CODE} | {"stages/train.py", model}
    listed = definition("train", MODELS[0])["deps"]
    assert ours == {dep for dep in listed if not dep.startswith("data")}


def test_check_runs_before_all_other_stages() -> None:
    assert CHECK["always_changed"]
    assert list(CHECK["outs"][0]) == [SOURCE_FILE.as_posix()]
    assert SOURCE_FILE.as_posix() in DAG["stages"]["prepare"]["deps"]
    assert {"data/dvc.yaml:check"} == ALWAYS_RUN


def test_packages_do_not_import_each_other_in_cycles() -> None:
    graph = networkx.DiGraph()
    for file in ROOT.glob("cifarpipe/*/**/*.py"):
        package = file.relative_to(ROOT).parts[1]
        imported = {Path(other).parts[1] for other in local_imports(file)} - {package}
        graph.add_edges_from((package, other) for other in imported)
    assert graph.has_edge("training", "networks")
    assert list(networkx.simple_cycles(graph)) == []


def test_library_has_no_loose_modules() -> None:
    assert {path.name for path in ROOT.glob("cifarpipe/*.py")} == {"__init__.py", "__main__.py"}


def test_package_files_hold_a_docstring_only() -> None:
    for file in ROOT.glob("cifarpipe/**/__init__.py"):
        assert len(ast.parse(file.read_text(encoding="utf-8")).body) == 1, file


def test_library_never_imports_stages() -> None:
    for file in ROOT.glob("cifarpipe/**/*.py"):
        assert not any(name.startswith("stages") for name in local_imports(file)), file


def test_tests_never_import_benchmarks() -> None:
    for file in ROOT.glob("tests/**/*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not any(module.startswith("benchmarks") for module in modules), file


def test_every_parameter_section_belongs_to_a_stage() -> None:
    listed = {param for stage, model in EVERY_STAGE for param in definition(stage, model)["params"]}
    assert set(type(PARAMS).model_fields) <= listed


def test_files_stay_short() -> None:
    lines = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in (
            "dvc.yaml",
            "params.yaml",
            *(f"stages/{p.name}" for p in ROOT.glob("stages/*.py")),
        )
    }
    limits = {"dvc.yaml": 197 + len(PARAMS.models), "params.yaml": 60 + 20 * len(PARAMS.models)}
    assert {path: n for path, n in lines.items() if n > limits.get(path, 60)} == {}


def test_every_model_is_an_artifact() -> None:
    assert list(DAG["artifacts"]) == MODELS
    for name, artifact in DAG["artifacts"].items():
        assert artifact["path"] in definition("train", name)["outs"]
        assert artifact["type"] == "model"
