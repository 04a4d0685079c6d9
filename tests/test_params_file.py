"""Reading of the parameter file: as DVC reads it, with a message for all that it refuses."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import HOW_TO_UNDO, load_params
from cifarpipe.config.schema import Params
from tests.support.params_text import CONTENT, ROOT, TEXT, changed, dump, refused_text, replaced


@pytest.mark.parametrize(
    "text",
    ["1e-3", "-.5e1", "025", "0o17", "0x1F", "1:30", "yes", "on", "true", "~", "12_000", ".inf"],
)
def test_plain_values_are_read_as_dvc_reads_them(file: Path, text: str) -> None:
    from dvc.utils.serialize import parse_yaml

    from cifarpipe.config.reader import _read_yaml

    file.write_text(f"key: {text}\n")
    ours, theirs = _read_yaml(file)["key"], parse_yaml(f"key: {text}\n", file)["key"]
    assert ours == theirs
    assert type(ours) is type(theirs)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("5e0", 5.0), ("2", 2.0), (".5", 0.5)]
)
def test_numbers_are_read_as_dvc_reads_them(file: Path, text: str, value: float) -> None:
    file.write_text(replaced("lr: 0.01", f"lr: {text}"))
    assert load_params(file).lr == value
    from dvc.utils.serialize import load_yaml

    assert load_yaml(str(file))["lr"] == value


def test_a_quoted_number_in_the_file_is_text(file: Path) -> None:
    message = refused_text(file, replaced("lr: 0.01", 'lr: "1e-3"'))
    assert "lr is '1e-3'" in message
    assert "take the quotes away" in message


def test_a_key_that_stands_twice_is_refused(file: Path) -> None:
    message = refused_text(file, TEXT + "lr: 0.02\n")
    assert 'found duplicate key "lr"' in message
    nested = refused_text(file, replaced("    depth: 6\n", "    depth: 6\n    depth: 7\n"))
    assert 'found duplicate key "depth"' in nested


def test_equal_keys_that_are_written_differently_are_refused(file: Path) -> None:
    message = refused_text(file, TEXT + "1: a\n1.0: b\n")
    assert "found duplicate key" in message


@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""'])
def test_a_tag_that_does_not_fit_its_value_is_refused(file: Path, value: str) -> None:
    assert "is not valid YAML" in refused_text(file, replaced("seed: 0", f"seed: {value}"))


def test_an_alias_is_refused(file: Path) -> None:
    text = replaced("lr: 0.01", "lr: &rate 0.01").replace("lr_scale: 0.3", "lr_scale: *rate", 1)
    message = refused_text(file, text)
    assert "line 33: *rate is an alias; write the value out" in message


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
def test_what_is_not_yaml_is_refused_in_one_line(file: Path, text: str) -> None:
    message = refused_text(file, text)
    first, *rest = message.splitlines()
    assert first.startswith(f"{file} is not valid YAML: ")
    assert rest == [HOW_TO_UNDO]


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello", "- 1\n", "3"])
def test_yaml_that_holds_no_sections_is_refused(file: Path, text: str) -> None:
    message = refused_text(file, text)
    assert "(the whole file) is" in message
    assert "a section of `key: value` lines is wanted here" in message


def test_a_file_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(TEXT.encode() + b"# caf\xe9\n")
    with pytest.raises(UserError, match="is not valid YAML: 'utf-8' codec can't decode"):
        load_params(file)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!mine"]
)
def test_a_tag_runs_nothing(file: Path, tag: str) -> None:
    trace = file.with_name("trace")
    message = refused_text(file, replaced("seed: 0", f'seed: {tag} ["touch {trace}"]'))
    assert "could not determine a constructor" in message
    assert not trace.exists()


def test_a_missing_file_is_named_with_what_to_do(file: Path) -> None:
    for place in (file, file.parent):  # nothing, and a folder
        with pytest.raises(UserError, match=r"does not exist in .*Run from the project's root"):
            load_params(place)


# Small, so that a property test can read it many times.
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


def _sections(content: Any) -> list[dict[Any, Any]]:
    if not isinstance(content, dict):
        return []
    return [content, *(inner for value in content.values() for inner in _sections(value))]


def loads_or_explains(file: Path) -> None:
    try:
        assert isinstance(load_params(file), Params)
    except UserError as refused:
        message = str(refused)
        assert message.startswith(str(file))
        assert message.endswith(HOW_TO_UNDO)
        assert len(message.splitlines()) >= 2


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("params") / "params.yaml"


@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_any_change_of_values_and_keys_loads_or_is_explained(
    one_file: Path, data: st.DataObject
) -> None:
    content = copy.deepcopy(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from(_sections(content)))
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
    loads_or_explains(one_file)


@given(
    start=st.integers(0, len(TEXT) - 1),
    length=st.integers(0, 40),
    instead=st.text(max_size=6)
    | st.text(st.sampled_from(":-[]{}#&*!|>'\" \n\t,?%@`~"), max_size=4),
)
@settings(deadline=None, max_examples=20)
def test_any_edit_of_the_text_loads_or_is_explained(
    one_file: Path, start: int, length: int, instead: str
) -> None:
    text = TEXT[:start] + instead + TEXT[start + length :]
    one_file.write_bytes(text.encode("utf-8", "surrogatepass"))
    loads_or_explains(one_file)


def train_command(folder: Path, model: str) -> str:
    """Run the real command in `folder`, which it must refuse; return what it says."""
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


def test_the_command_refuses_bad_parameters_with_exit_2_and_writes_nothing(file: Path) -> None:
    file.write_text(dump(changed(lr="abc", data__val_sise=1)))
    said = train_command(file.parent, "vit")
    assert said.splitlines() == [
        "error: params.yaml has 2 faults:",
        "  - lr is 'abc': Input should be a valid number",
        "  - data.val_sise is not a known key (misspelt, or not for this section)",
        HOW_TO_UNDO,
    ]


def test_the_command_refuses_a_model_that_does_not_exist(file: Path) -> None:
    file.write_text(TEXT, encoding="utf-8")
    said = train_command(file.parent, "vitt")
    assert "unknown model 'vitt'; params.yaml has: vit, vit_mean, vit_t2t" in said


def test_the_command_refuses_a_folder_without_parameters(tmp_path: Path) -> None:
    assert "params.yaml does not exist" in train_command(tmp_path, "vit")


def test_a_file_that_would_take_minutes_is_refused(file: Path) -> None:
    file.write_text("x: [" + "1, " * 400_000 + "1]\n")
    with pytest.raises(UserError, match=r"has 1,200,007 bytes; allowed are 1,000,000"):
        load_params(file)
