"""Trained networks on disk: loading restores what was saved, and refuses any other file."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.data.preparation import prepare
from cifarpipe.models.build import build_model
from cifarpipe.networks.checkpoint import Origin, load_model, save_model
from cifarpipe.networks.devices import memory_format
from tests.support.architectures import MODEL_OF_ARCHITECTURE
from tests.support.origins import make_origin
from tests.support.raw_images import make_raw, settings

CPU = torch.device("cpu")
EVERY_ARCHITECTURE = pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())


def make(params: Params, name: str, seed: int = 0) -> tuple[nn.Module, Origin]:
    torch.manual_seed(seed)
    architecture = params.models[name].architecture
    model = build_model(architecture, num_classes=4, image_size=32)
    for buffer in model.buffers():  # statistics of batch norms, initially 0 and 1
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    origin = make_origin(
        name,
        ["007", "<b>", "naïve", 'a"b'],
        architecture=architecture,
        mean=(0.1, 1 / 3, 0.5),
        std=(0.2, 0.25, 0.3),
    )
    return model, origin


@EVERY_ARCHITECTURE
def test_loaded_model_equals_saved_model(name: str, demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, name)
    save_model(tmp_path / "m.safetensors", model.state_dict(), origin)
    torch.manual_seed(99)  # so that equal weights do not come from the seed
    loaded, loaded_origin = load_model(tmp_path / "m.safetensors", CPU)
    assert loaded_origin == origin
    assert not any(module.training for module in loaded.modules())
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():  # another memory layout rounds sums differently
        torch.testing.assert_close(loaded(images), model.eval()(images))
    kernels = [weight for weight in loaded.parameters() if weight.ndim == 4]
    layout = memory_format(model, CPU)
    assert all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)
    weights = model.state_dict()
    assert weights.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())


def test_equal_content_gives_equal_bytes(demo_params: Params, tmp_path: Path) -> None:
    paths = [tmp_path / name / "m.safetensors" for name in ("first", "again", "other")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        model, origin = make(demo_params, "convmixer", seed)
        weights = model.state_dict()
        if path.parent.name == "again":  # in another order
            weights = dict(reversed(weights.items()))
        save_model(path, weights, origin)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other


def test_non_contiguous_weights_are_saved(demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, "convmixer")
    weights = model.state_dict()
    weights["head.weight"] = weights["head.weight"].T.contiguous().T
    assert not weights["head.weight"].is_contiguous()
    save_model(tmp_path / "m.safetensors", weights, origin)
    loaded, _ = load_model(tmp_path / "m.safetensors", CPU)
    assert torch.equal(loaded.state_dict()["head.weight"], model.state_dict()["head.weight"])


def test_failed_write_leaves_the_old_file(demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, "convmixer")
    path = tmp_path / "m.safetensors"
    save_model(path, model.state_dict(), origin)
    before = path.read_bytes()
    unwritable = replace(origin, seed=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        save_model(path, model.state_dict(), unwritable)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.safetensors does not exist.\nRun `dvc repro` in"):
        load_model(tmp_path / "gone.safetensors", CPU)


class Exploit:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.trace,))  # type: ignore[return-value]


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickle_is_refused_and_not_executed(writer: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "m.safetensors", tmp_path / "executed"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Exploit(trace)))
    else:
        torch.save({"weights": Exploit(trace)}, path)
    with pytest.raises(
        UserError, match="is not a model of this version of the pipeline, or is damaged"
    ):
        load_model(path, CPU)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_truncated_file_is_refused(kept: float, demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, "convmixer")
    path = tmp_path / "m.safetensors"
    save_model(path, model.state_dict(), origin)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(
        UserError, match="is not a model of this version of the pipeline, or is damaged"
    ):
        load_model(path, CPU)


@pytest.mark.parametrize(
    "metadata", [None, {"other": "{}"}, {"cifarpipe": "{"}, {"cifarpipe": '{"name": "vit"}'}]
)
def test_foreign_safetensors_file_is_refused(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata)
    with pytest.raises(
        UserError, match="is not a model of this version of the pipeline, or is damaged"
    ):
        load_model(path, CPU)


def test_any_flipped_bit_is_detected(demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, "convmixer")
    path = tmp_path / "m.safetensors"
    save_model(path, model.state_dict(), origin)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    in_header, anywhere = (rng.integers(0, end, 100) for end in (8 * 1500, 8 * len(whole)))
    for place in (*in_header, *anywhere):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match="is not a model of this version of the pipeline, or is damaged"
        ):
            load_model(path, CPU)


def test_unknown_architecture_is_refused(demo_params: Params, tmp_path: Path) -> None:
    model, origin = make(demo_params, "convmixer")
    architecture = {**origin.architecture, "unknown": 1}
    save_model(tmp_path / "m.st", model.state_dict(), replace(origin, architecture=architecture))
    with pytest.raises(UserError, match="can't build its convmixer"):
        load_model(tmp_path / "m.st", CPU)


def test_other_architecture_or_data_is_refused(
    demo_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = prepare(make_raw(), settings(), 0)
    vit, convmixer = (demo_params.models[name].architecture for name in ("vit", "convmixer"))
    origin = replace(
        make_origin("vit", data.classes, architecture=vit),
        split_fingerprint=data.split_fingerprint,
    )
    origin.require(vit, data)
    with pytest.raises(UserError, match=r"another architecture .*: depth is \d+, not 99"):
        origin.require(vit | {"depth": 99}, data)
    with pytest.raises(UserError, match=r"dropout is None, not 0\.1"):
        origin.require(vit | {"dropout": 0.1}, data)
    with pytest.raises(UserError, match="arch is vit, not convmixer"):
        origin.require(convmixer, data)
    for seed, val_size in ((1, 12), (0, 9)):
        other = prepare(make_raw(), settings(val_size=val_size), seed)
        with pytest.raises(UserError, match="trained on other images, or on another split"):
            origin.require(vit, other)
