"""dvc.yaml against the code and the parameters: what each stage lists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from stages.train import CODE
from tests.support.dag_setting import DAG, MODELS, PARAMS, PER_MODEL, ROOT, definition

ARCHITECTURES = {entry.arch for entry in PARAMS.models.values()}
EVERY_STAGE = [("prepare", None), ("report", None), *((s, m) for s in PER_MODEL for m in MODELS)]
# Code that shapes no result, and that no stage lists.
NEVER_LISTED = {
    "cifarpipe/__init__.py",
    "cifarpipe/models/__init__.py",
    "cifarpipe/models/build.py",
}


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
    return {file for file in found if not never_listed(file)}


def never_listed(file: str) -> bool:
    return file in NEVER_LISTED or file.startswith("cifarpipe/config/")


def room(file: str) -> str:
    """Return what a stage lists for a file: its package, or the file of an architecture."""
    path = Path(file)
    return file if path.parent.name in {"models", "stages"} else "/".join(path.parts[:2])


@pytest.mark.parametrize(("stage", "model"), EVERY_STAGE)
def test_stage_lists_the_packages_it_reaches(stage: str, model: str | None) -> None:
    listed = {
        dep for dep in definition(stage, model)["deps"] if dep.startswith(("stages", "cifar"))
    }
    assert listed == {
        room(file) for file in reached(stage, PARAMS.models[model].arch if model else None)
    }


@pytest.mark.parametrize("model", MODELS)
def test_train_reaches_every_file_it_lists(model: str) -> None:
    """A file that train does not use would retrain every model when it is edited."""
    files = reached("train", PARAMS.models[model].arch)
    listed = (ROOT / dep for dep in definition("train", model)["deps"] if dep.startswith("cifar"))
    there = {file for dep in listed for file in (dep.rglob("*.py") if dep.is_dir() else [dep])}
    assert {f.relative_to(ROOT).as_posix() for f in there if f.name != "__init__.py"} == {
        file for file in files if file.startswith("cifarpipe/")
    }


def test_resumption_is_keyed_by_the_code_of_train() -> None:
    ours = {f"cifarpipe/{name}" for name in CODE} | {"stages/train.py", "cifarpipe/models/vit.py"}
    assert ours == {d for d in definition("train", "vit")["deps"] if not d.startswith("data")}


def test_packages_import_each_other_in_no_circle() -> None:
    graph = networkx.DiGraph()
    for file in ROOT.glob("cifarpipe/*/**/*.py"):
        package = file.relative_to(ROOT).parts[1]
        imported = {Path(other).parts[1] for other in local_imports(file)} - {package}
        graph.add_edges_from((package, other) for other in imported)
    assert list(networkx.simple_cycles(graph)) == []


def test_library_holds_packages_alone() -> None:
    assert {path.name for path in ROOT.glob("cifarpipe/*.py")} == {"__init__.py", "__main__.py"}


def test_package_files_hold_a_docstring_alone() -> None:
    for file in ROOT.glob("cifarpipe/**/__init__.py"):
        assert len(ast.parse(file.read_text(encoding="utf-8")).body) == 1, file


def test_library_never_imports_stages() -> None:
    for file in ROOT.glob("cifarpipe/**/*.py"):
        assert not any(name.startswith("stages") for name in local_imports(file)), file


def test_every_section_of_the_parameters_belongs_to_a_stage() -> None:
    listed = {param for stage, model in EVERY_STAGE for param in definition(stage, model)["params"]}
    assert set(type(PARAMS).model_fields) <= listed


def test_figures_of_all_models_name_all_models() -> None:
    for plot in DAG["plots"]:
        ((_, options),) = plot.items()
        assert list(options["y"]) == [f"reports/models/{name}/history.csv" for name in MODELS]
