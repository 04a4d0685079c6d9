"""`cifarpipe export`: the ONNX file computes what the network does, or is not written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from cifarpipe.cli import export
from cifarpipe.cli.main import main
from cifarpipe.config.architectures import ModelEntry
from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params
from cifarpipe.data.preparation import prepare
from cifarpipe.data.raw import RawData, RawSplit
from cifarpipe.models.build import build_model
from cifarpipe.networks.checkpoint import load_model, save_model
from tests.support.origins import make_origin

ROOT = Path(__file__).parents[1]
CLASSES = ["cat", 'a, "b"', "007"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
ALONE = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession("vit.onnx", providers=["CPUExecutionProvider"])
images = np.load("images.npy")
parts = [images[:1], *np.array_split(images[1:], 3)]
np.save("probabilities.npy", np.concatenate([session.run(None, {"images": x})[0] for x in parts]))
assert not {"torch", "cifarpipe"} & set(sys.modules)
"""


def raw_split(count: int, seed: int) -> RawSplit:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return RawSplit(images, np.arange(count) % len(CLASSES))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a study with prepared images, and return it."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    params = load_params()
    data = params.data.model_copy(update={"val_size": 6, "train_size": None, "test_size": None})
    prepare(RawData(CLASSES, raw_split(30, 0), raw_split(9, 1)), data, seed=0)
    return tmp_path


def save_untrained(entry: ModelEntry, name: str = "vit", size: int = 32) -> None:
    torch.manual_seed(0)
    network = build_model(entry.architecture, num_classes=len(CLASSES), image_size=size)
    with torch.no_grad():  # an untrained network may say the same of all images
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    origin = make_origin(name, CLASSES, architecture=entry.architecture, mean=MEAN, std=STD)
    path = Path(f"artifacts/{name}/model.safetensors")
    save_model(path, network.state_dict(), replace(origin, image_size=size))


def expected_probabilities(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Normalise as a user would, and let the network compute the rest."""
    network, _ = load_model(Path("artifacts/vit/model.safetensors"), torch.device("cpu"))
    inputs = torch.tensor((images / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network(inputs).double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def run_alone(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a program computes that has the file, NumPy and onnxruntime, and no more."""
    np.save("images.npy", images)
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load("probabilities.npy")


def check_file(entry: ModelEntry, count: int) -> None:
    save_untrained(entry)
    export.export_model("vit", None)
    images = np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    expected = expected_probabilities(images)
    assert expected.std(axis=1).min() > 1e-3  # else nothing is compared
    np.testing.assert_allclose(run_alone(images), expected, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("arch", ["vit", "convmixer"])
def test_file_computes_what_the_network_does(
    folder: Path, arch: str, demo_params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    check_file(next(each for each in demo_params.models.values() if each.arch == arch), 20)
    assert (folder / "vit.onnx").is_file()
    assert "onnxruntime's probabilities differ from the network's by at most" in (
        capsys.readouterr().out
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", list(load_params(ROOT / "params.yaml").models))
@pytest.mark.usefixtures("folder")
def test_file_of_every_default_model(name: str) -> None:
    check_file(load_params(ROOT / "params.yaml").models[name], 1000)


@pytest.mark.thorough
def test_metadata_names_classes_and_origin(folder: Path, demo_params: Params) -> None:
    save_untrained(demo_params.models["convmixer"])
    export.export_model("vit", Path("new/net.ONNX"))
    session = onnxruntime.InferenceSession("new/net.ONNX", providers=["CPUExecutionProvider"])
    details = session.get_modelmeta().custom_metadata_map
    assert json.loads(details["classes"]) == CLASSES
    origin = json.loads(details["origin"])
    assert origin["name"] == "vit"
    assert origin["mean"] == list(MEAN)
    assert [each.name for each in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape[1:] == [32, 32, 3]
    assert [each.name for each in session.get_outputs()] == ["probabilities"]
    assert [path.name for path in Path("new").iterdir()] == ["net.ONNX"]


@pytest.mark.thorough
def test_file_that_differs_is_not_written(
    folder: Path, demo_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_untrained(demo_params.models["convmixer"])
    right = export.run_onnx
    monkeypatch.setattr(export, "run_onnx", lambda *arguments: right(*arguments) + 2e-4)
    with pytest.raises(UserError, match=r"differ .* up to 0\.0002; allowed: 0\.0001\.\nNothing"):
        export.export_model("vit", None)
    assert not list(folder.glob("*onnx*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nosuch"], "unknown model 'nosuch'"),
        (["--model", "vit"], "artifacts/vit/model.safetensors does not exist.\nRun `dvc repro`"),
        (
            ["--model", "vit", "--out", "vit.pt"],
            "--out is vit.pt; allowed: the name of a file that",
        ),
    ],
)
def test_mistake_gives_one_message_and_exit_code_2(
    folder: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["cifarpipe", "export", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_images_of_another_size_are_refused(folder: Path, demo_params: Params) -> None:
    save_untrained(demo_params.models["vit"], size=64)
    with pytest.raises(UserError, match="images of 64 pixels; the prepared ones have 32"):
        export.export_model("vit", None)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r"needs onnxscript, .*\n.*pip install -e '\.\[onnx\]'"):
        export.require_packages()
