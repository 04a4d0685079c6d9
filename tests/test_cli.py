"""The command `cifarpipe`: what `explain` prints, writes and refuses; completion."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cifarpipe.cli.main import complete_model, main
from cifarpipe.config.schema import Params
from cifarpipe.explanations.methods import ATTENTION_METHODS, GENERAL_METHODS
from cifarpipe.models.build import build_model
from cifarpipe.networks.checkpoint import load_model, save_model
from tests.support.origins import make_origin

ROOT = Path(__file__).parents[1]
CLASSES = ["cat", "a longer name", "dog", "<b>"]
MODELS = ("vit", "convmixer")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, demo_params: Params) -> Path:
    """Return a project with parameters and two untrained networks."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(ROOT / "params.demo.yaml", folder / "params.yaml")
    for name in MODELS:
        torch.manual_seed(0)
        architecture = demo_params.models[name].architecture
        network = build_model(architecture, num_classes=len(CLASSES), image_size=32)
        with torch.no_grad():  # make the classes' probabilities differ
            network.head.bias.copy_(torch.tensor([0.0, 2.0, 1.0, -1.0]))
        origin = make_origin(
            name,
            CLASSES,
            architecture=architecture,
            mean=(0.4, 0.5, 0.6),
            std=(0.2, 0.25, 0.3),
        )
        save_model(folder / f"artifacts/{name}/model.safetensors", network.state_dict(), origin)
    return folder


@pytest.fixture
def folder(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with the files of the study and an image, and return it."""
    (tmp_path / "params.yaml").symlink_to(study / "params.yaml")
    (tmp_path / "artifacts").symlink_to(study / "artifacts")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command and returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cifarpipe", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


GIVEN = {"params.yaml", "artifacts", "photo.png"}


@pytest.mark.parametrize("name", MODELS)
def test_explain_prints_predictions_and_writes_png(folder: Path, run, name: str) -> None:
    code, out, err = run("explain", "photo.png", "--model", name)
    assert (code, err) == (0, "")
    head, table, tail = out.split("\n\n")
    assert head == (
        "photo.png: PNG, 64 × 48 pixels;\ncropped to the central 48 × 48, reduced to 32 × 32."
    )
    network, origin = load_model(Path(f"artifacts/{name}/model.safetensors"), torch.device("cpu"))
    with Image.open("photo.png") as image:
        image = image.crop((8, 0, 56, 48)).resize((32, 32), Image.Resampling.LANCZOS)
    batch = (np.array(image) / 255 - origin.mean) / origin.std
    with torch.no_grad():
        logits = network(torch.tensor(batch.transpose(2, 0, 1)[None], dtype=torch.float32))
    expected = np.exp(logits[0].double().numpy())
    expected /= expected.sum()
    order = np.argsort(-expected)
    lines = table.splitlines()
    assert lines[0].split() == ["class", "probability"]
    assert len(lines) == 1 + len(CLASSES)
    for line, label in zip(lines[1:], order, strict=True):
        shown, probability = re.fullmatch(r"(.+?)  +(0\.\d{4})(?:  █+)?", line).groups()
        assert shown == CLASSES[label]
        assert float(probability) == pytest.approx(expected[label], abs=2e-4)
    assert lines[1].count("█") == round(25 * expected[order[0]])
    assert tail.startswith(f"Maps of {name} by ")
    assert tail.endswith(f": photo_{name}.png\n")
    assert files(folder) == GIVEN | {f"photo_{name}.png"}
    with Image.open(f"photo_{name}.png") as written:
        assert written.format == "PNG"


def test_remaining_predictions_are_summed_in_one_line(folder: Path, run) -> None:
    table = run("explain", "photo.png", "--model", "vit", "--top", "1")[1].split("\n\n")[1]
    first, rest = table.splitlines()[1:]
    assert rest.startswith("3 others ")
    assert sum(float(line.split()[-2]) for line in (first, rest)) == pytest.approx(1, abs=1e-4)
    table = run("explain", "photo.png", "--model", "vit", "--top", "3")[1].split("\n\n")[1]
    assert table.splitlines()[-1].startswith("1 other ")
    code, _, err = run("explain", "photo.png", "--model", "vit", "--top", "0")
    assert code == 2
    assert "Traceback" not in err


def test_method_option_overrides_params(folder: Path, run, demo_params: Params) -> None:
    for arch in MODELS:
        method = demo_params.gradcam.method[arch]
        assert f"Maps of {arch} by {method}: " in run("explain", "photo.png", "--model", arch)[1]
    arguments = ("--method", "layercam", "--out", "new/other.PNG")
    code, out, _ = run("explain", "photo.png", "--model", "vit", *arguments)
    assert (code, out.splitlines()[-1]) == (0, "Maps of vit by layercam: new/other.PNG")
    assert files(folder / "new") == {"other.PNG"}
    default, other = (Path(name).read_bytes() for name in ("photo_vit.png", "new/other.PNG"))
    assert default != other


def test_class_agnostic_method_draws_one_map(folder: Path, run) -> None:
    arguments = ("--method", "attention_rollout", "--out", "one.png")
    run("explain", "photo.png", "--model", "vit")
    assert run("explain", "photo.png", "--model", "vit", *arguments)[0] == 0
    with Image.open("one.png") as one, Image.open("photo_vit.png") as three:
        assert one.width < three.width * 0.6


@pytest.mark.parametrize("name", ["猫 $x^.png", "not text \udcff.png"])
def test_any_file_name_is_accepted(folder: Path, run, name: str) -> None:
    shutil.copy("photo.png", name)
    code, out, err = run("explain", name, "--model", "convmixer")
    assert (code, err) == (0, "")
    assert name.replace("\udcff", "?") in out


TEXT = "This is not an image.\n"
REFUSED = [
    (
        ["photo.png", "--model", "nosuch"],
        "unknown model 'nosuch'; params.yaml has: resnet18_ln, vit, ",
    ),
    (["photo.png", "--model", "resnet18_ln"], "model.safetensors does not exist.\nRun `dvc repro`"),
    (["absent.png", "--model", "vit"], "absent.png does not exist"),
    ([".", "--model", "vit"], ". is a folder"),
    (["empty.png", "--model", "vit"], "empty.png is empty"),
    (["text.png", "--model", "vit"], "text.png is not an image"),
    (["half.jpg", "--model", "vit"], "half.jpg can't be read: "),
    (
        ["photo.png", "--model", "convmixer", "--method", "attention_rollout"],
        "'attention_rollout'; allowed for convmixer (arch convmixer): "
        f"{', '.join(GENERAL_METHODS)}.\n",
    ),
    (
        ["photo.png", "--model", "vit", "--method", "camgrad"],
        "--method is 'camgrad'; allowed for vit (arch vit): "
        f"{', '.join([*GENERAL_METHODS, *ATTENTION_METHODS])}.\n",
    ),
    (["photo.png", "--model", "vit", "--out", "photo.png"], "photo.png is an image itself"),
    (["photo.png", "--model", "vit", "--out", "linked.png"], "linked.png is an image itself"),
    (
        ["photo.png", "--model", "vit", "--out", "out.jpg"],
        "--out is out.jpg; allowed: the name of a file",
    ),
    (
        ["photo.png", "--model", "vit", "--out", "taken.png"],
        "taken.png is a folder",
    ),
    (
        ["photo.png", "--model", "vit", "--out", "text.png/a.png"],
        "text.png/a.png can't be written",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(c[0]) for c in REFUSED])
def test_mistake_gives_one_message_and_exit_code_2(
    folder: Path, run, arguments: list[str], message: str
) -> None:
    (folder / "empty.png").touch()
    (folder / "text.png").write_text(TEXT)
    (folder / "linked.png").hardlink_to("photo.png")
    (folder / "taken.png").mkdir()
    (folder / "taken.png/file").touch()
    Image.open("photo.png").save("whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = run("explain", *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert message in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_model_of_a_former_architecture_needs_a_method(folder: Path, run) -> None:
    """The entry now has another architecture, and only that one has a method in params.yaml."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["models"] = {"vit": params["models"]["convmixer"]}
    params["gradcam"]["method"] = {"convmixer": "layercam"}
    params["report"].pop("baselines", None)
    Path("params.yaml").unlink()
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, _, err = run("explain", "photo.png", "--model", "vit")
    assert code == 2
    assert "vit was trained as a vit, for which params.yaml has no `gradcam.method`" in err
    assert run("explain", "photo.png", "--model", "vit", "--method", "libragrad")[0] == 0


@pytest.mark.thorough
def test_several_pictures_are_explained_as_each_alone(folder: Path, run) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("other.png")
    alone = [run("explain", name, "--model", "vit") for name in ("photo.png", "other.png")]
    code, out, err = run("explain", "photo.png", "other.png", "--model", "vit", "--out", "maps")
    assert (code, err) == (0, "")
    for name, (_, single, _) in zip(("photo", "other"), alone, strict=True):
        assert single.replace(f": {name}_vit.png", f": maps/{name}_vit.png") in out
        written = Path(f"maps/{name}_vit.png").read_bytes()
        assert written == Path(f"{name}_vit.png").read_bytes()


def test_damaged_picture_does_not_stop_the_others(folder: Path, run) -> None:
    Path("text.png").write_text(TEXT)
    Path("empty.png").touch()
    code, out, err = run("explain", "text.png", "empty.png", "photo.png", "--model", "vit")
    assert code == 1
    assert err.startswith("not explained: text.png is not an image")
    assert "not explained: empty.png is empty" in err
    assert "photo_vit.png" in out
    assert files(folder) == GIVEN | {"text.png", "empty.png", "photo_vit.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "absent.png"], "absent.png does not exist"),
        (["photo.png", "b/photo.png"], "The maps of photo.png and b/photo.png would both be "),
        (["photo.png", "b/photo_vit.png", "--out", "b"], "b/photo_vit.png is an image itself"),
        (["photo.png", "b/other.png", "--out", "a.png"], "allowed for several images: a folder"),
        (["photo.png", "photo_vit.png/x.png"], "photo_vit.png/x.png does not exist"),
    ],
)
def test_mistake_with_several_pictures_writes_nothing(
    folder: Path, run, arguments: list[str], message: str
) -> None:
    Path("b").mkdir()
    for name in ("photo", "other", "photo_vit"):
        shutil.copy("photo.png", f"b/{name}.png")
    code, _, err = run("explain", *arguments, "--model", "vit")
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert files(folder) == GIVEN | {"b"}


def test_shell_completes_names_of_models(
    folder: Path, demo_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(demo_params.models)
    assert complete_model("") == names
    assert complete_model("vit") == [name for name in names if name.startswith("vit")]
    monkeypatch.chdir("/")
    assert complete_model("") == []
    done = subprocess.run(
        [Path(sys.executable).parent / "cifarpipe"],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "_CIFARPIPE_COMPLETE": "complete_bash", "COMP_CWORD": "3",
             "COMP_WORDS": "cifarpipe predict --model conv"},
    )  # fmt: skip
    assert done.stdout.split() == [name for name in names if name.startswith("conv")]


def test_failed_drawing_leaves_no_file(folder: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_figure: object, path: Path, **_options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", disk_full)
    code, _, err = run("explain", "photo.png", "--model", "vit")
    assert code == 2
    assert "photo_vit.png can't be written: No space left on device.\n" in err
    assert files(folder) == GIVEN


def test_message_outside_project_says_where_to_run(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("explain", "photo.png", "--model", "vit")
    assert code == 2
    assert "Run from the project's root folder." in err


def test_help_imports_no_slow_package() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cifarpipe", "explain", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--method" in done.stdout
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "cifarpipe.cli.main" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "matplotlib", "PIL", "cifarpipe.config.schema"}


def test_installed_command_is_this_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, function = project["scripts"]["cifarpipe"].split(":")
    assert getattr(import_module(module), function) is main
