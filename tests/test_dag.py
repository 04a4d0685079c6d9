"""dvc.yaml against the code and the parameters: what each stage lists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.train import CODE
from tests.dag_setting import DAG, MODELS, PARAMS, PER_MODEL, ROOT, definition

NEVER_SHAPES_A_RESULT = {
    "cifarpipe/command.py", "cifarpipe/errors.py", "cifarpipe/models/build.py",
    "cifarpipe/params.py", "cifarpipe/params_file.py",
}  # fmt: skip


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


def test_a_killed_run_is_tied_to_the_code_of_its_stage() -> None:
    ours = [Path("cifarpipe") / name for name in CODE]
    files = {file.relative_to(ROOT).as_posix() for path in ours for file in expanded(ROOT / path)}
    listed = {dep for dep in definition("train", "vit")["deps"] if dep.endswith(".py")}
    assert files | {"stages/train.py", "cifarpipe/models/vit.py"} == listed - NEVER_SHAPES_A_RESULT


def expanded(path: Path) -> list[Path]:
    return [file for file in path.glob("*.py") if file.stem != "__init__"] or [path]


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
