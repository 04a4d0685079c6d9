"""Reading params.yaml: equal to DVC's reading, with a message for everything refused."""

import copy
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import how_to_undo, load_params
from cifarpipe.models.build import build_model
from tests.support.params_text import CONTENT, ROOT, TEXT, changed, dump, refused_text, replaced


@pytest.mark.parametrize(
    "text",
    ["1e-3", "-.5e1", "025", "0o17", "0x1F", "1:30", "yes", "on", "true", "~", "12_000", ".inf"],
)
def test_plain_values_equal_those_of_dvc(file: Path, text: str) -> None:
    from dvc.utils.serialize import parse_yaml

    from cifarpipe.config.reader import _read_yaml

    file.write_text(f"key: {text}\n")
    ours, theirs = _read_yaml(file)["key"], parse_yaml(f"key: {text}\n", file)["key"]
    assert ours == theirs
    assert type(ours) is type(theirs)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("5e0", 5.0), ("2", 2.0), (".5", 0.5)]
)
def test_numbers_equal_those_of_dvc(file: Path, text: str, value: float) -> None:
    file.write_text(replaced("lr: 0.01", f"lr: {text}"))
    assert load_params(file).lr == value
    from dvc.utils.serialize import load_yaml

    assert load_yaml(str(file))["lr"] == value


def test_quoted_number_is_refused_as_text(file: Path) -> None:
    message = refused_text(file, replaced("lr: 0.01", 'lr: "1e-3"'))
    assert "lr is '1e-3'" in message
    assert "remove the quotes" in message


def test_duplicate_key_is_refused(file: Path) -> None:
    message = refused_text(file, TEXT + "lr: 0.02\n")
    assert 'found duplicate key "lr"' in message
    nested = refused_text(file, replaced("    depth: 6\n", "    depth: 6\n    depth: 7\n"))
    assert 'found duplicate key "depth"' in nested


def test_equal_keys_of_different_spelling_are_refused(file: Path) -> None:
    message = refused_text(file, TEXT + "1: a\n1.0: b\n")
    assert "found duplicate key" in message


@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""'])
def test_tag_that_contradicts_its_value_is_refused(file: Path, value: str) -> None:
    assert "is not valid YAML" in refused_text(file, replaced("seed: 0", f"seed: {value}"))


def test_alias_is_refused(file: Path) -> None:
    text = replaced("lr: 0.01", "lr: &rate 0.01").replace("lr_scale: 0.3", "lr_scale: *rate", 1)
    message = refused_text(file, text)
    line = 1 + text.splitlines().index("    lr_scale: *rate")
    assert f"line {line}: *rate is an alias; write the value itself" in message


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2\nb: }",
        "lr:\t0.01\n\tx: 1",
        "seed: 0\nseed 1\n",
        TEXT + "---\n" + TEXT,
        "a: " + "[" * 400,
        "title: \x00",
        "seed: 1" + "0" * 5000,
    ],
)
def test_invalid_yaml_is_refused_in_one_line(file: Path, text: str) -> None:
    message = refused_text(file, text)
    first, *rest = message.splitlines()
    assert first.startswith(f"{file} is not valid YAML: ")
    assert rest == [how_to_undo(file)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello", "- 1\n", "3"])
def test_yaml_without_sections_is_refused(file: Path, text: str) -> None:
    message = refused_text(file, text)
    assert "(the whole file) is" in message
    assert "expected a section; its keys: seed, lr, data, train, models, " in message


def test_advice_names_the_file(tmp_path: Path) -> None:
    message = refused_text(tmp_path / "mine.yaml", "3")
    assert message.splitlines()[-1] == (
        f"Fix the file. `git diff {tmp_path}/mine.yaml` shows what was changed, and "
        f"`git checkout {tmp_path}/mine.yaml` undoes all of it (a refused `dvc exp run -S …` "
        f"leaves its value in the file)."
    )


def test_file_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(TEXT.encode() + b"# caf\xe9\n")
    with pytest.raises(UserError, match="is not valid YAML: 'utf-8' codec can't decode"):
        load_params(file)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!mine"]
)
def test_yaml_tag_runs_no_code(file: Path, tag: str) -> None:
    trace = file.with_name("trace")
    message = refused_text(file, replaced("seed: 0", f'seed: {tag} ["touch {trace}"]'))
    assert "could not determine a constructor" in message
    assert not trace.exists()


def test_missing_file_is_reported_with_advice(file: Path) -> None:
    for path in (file, file.parent):  # no file, and a folder
        with pytest.raises(UserError, match=r"does not exist in .*Run from the project's root"):
            load_params(path)


# Small, so that property tests can read it many times.
SMALL = changed(
    models={key: CONTENT["models"][key] for key in ("convmixer", "resnet18_ln_plateau")},
    report__baselines={"convmixer": "some.csv"},
)
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["1e-3", "best", "vit", "sgd", "plateau", "folder", "null", "*a", "<<"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=4,
)


def sections(content: Any) -> list[dict[Any, Any]]:
    if not isinstance(content, dict):
        return []
    return [content, *(inner for value in content.values() for inner in sections(value))]


def check_accepted_or_explained(file: Path) -> None:
    """Check that the file is refused with a message in the usual form, or describes networks."""
    try:
        params = load_params(file)
    except UserError as refused:
        message = str(refused)
        assert message.startswith(str(file))
        assert message.endswith(how_to_undo(file))
        assert len(message.splitlines()) >= 2
        return
    for entry in params.models.values():
        if max(v for v in entry.architecture.values() if isinstance(v, int)) > 1000:
            continue  # a depth of a billion takes too long
        with suppress(UserError), torch.device("meta"):  # no memory, however large they are
            network = build_model(entry.architecture, num_classes=10, image_size=32)
            assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("params") / "params.yaml"


@pytest.mark.thorough
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_any_change_is_accepted_or_explained(one_file: Path, data: st.DataObject) -> None:
    content = copy.deepcopy(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from(sections(content)))
        what = data.draw(st.sampled_from(["delete", "change", "add"]))
        if what == "add" or not section:
            key = data.draw(st.text(max_size=10) | st.integers() | st.none())
            section[key] = data.draw(ODD)
        else:
            key = data.draw(st.sampled_from(sorted(section, key=repr)))
            if what == "delete":
                del section[key]
            else:
                section[key] = data.draw(ODD)
    one_file.write_text(dump(content), encoding="utf-8")
    check_accepted_or_explained(one_file)


@pytest.mark.thorough
@given(
    start=st.integers(0, len(TEXT) - 1),
    length=st.integers(0, 40),
    instead=st.text(max_size=6)
    | st.text(st.sampled_from(":-[]{}#&*!|>'\" \n\t,?%@`~"), max_size=4),
)
@settings(deadline=None, max_examples=10)
def test_any_text_edit_is_accepted_or_explained(
    one_file: Path, start: int, length: int, instead: str
) -> None:
    text = TEXT[:start] + instead + TEXT[start + length :]
    one_file.write_bytes(text.encode("utf-8", "surrogatepass"))
    check_accepted_or_explained(one_file)


def refused_command(folder: Path, model: str) -> str:
    """Run the stage `train` in `folder`, where it must fail; return its message."""
    before = sorted(folder.rglob("*"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", model],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == 1
    assert sorted(folder.rglob("*")) == before
    return done.stderr


def test_stage_refuses_invalid_parameters_and_writes_nothing(file: Path) -> None:
    file.write_text(dump(changed(lr="abc", data__val_sise=1)))
    message = refused_command(file.parent, "vit")
    assert message.splitlines() == [
        "error: params.yaml has 2 errors:",
        "  - lr is 'abc': Input should be a valid number",
        "  - data.val_sise is not a known key; "
        "known: source, folder, val_size, train_size, test_size, image_size",
        how_to_undo("params.yaml"),
    ]


def test_stage_refuses_unknown_model(file: Path) -> None:
    file.write_text(TEXT, encoding="utf-8")
    message = refused_command(file.parent, "vitt")
    assert "unknown model 'vitt'; params.yaml has: vit, vit_t2t, vit_conv" in message


def test_stage_refuses_folder_without_parameters(tmp_path: Path) -> None:
    assert "params.yaml does not exist" in refused_command(tmp_path, "vit")


def test_large_file_is_refused(file: Path) -> None:
    file.write_text("x: [" + "1, " * 400_000 + "1]\n")
    with pytest.raises(UserError, match=r"has 1,200,007 bytes; allowed: 1,000,000"):
        load_params(file)
