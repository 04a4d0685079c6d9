"""Explanations of rows of the predictions table: the images' own maps, in the rows' order."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.explanations.gradcam import class_activation_maps
from cifarpipe.models.build import Classifier, build_model
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.networks.normalize import normalize
from cifarpipe.results.maps import Explanations
from cifarpipe.results.predictions import predictions_table
from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split
from tests.support.origins import make_origin
from tests.support.terminal import Terminal, replace_stderr

CLASSES = ["zebra", "007", "ant", "true", "<b>"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
N = 24


@dataclass
class Setting:
    """A network with random weights, images, and the table of its predictions."""

    model: Classifier
    origin: Origin
    split: Split
    table: pd.DataFrame


def make_setting(name: str, params: Params) -> Setting:
    rng = np.random.default_rng(0)
    index = np.sort(rng.choice(1000, N, replace=False))  # never the position of the image
    images = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, len(CLASSES), N), index)
    torch.manual_seed(0)
    architecture = params.models[name].architecture
    model = build_model(architecture, num_classes=len(CLASSES), image_size=32).eval()
    origin = make_origin(name, CLASSES, mean=MEAN, std=STD)

    def logits() -> np.ndarray:
        return compute_logits(
            model, ImageStore(images, torch.device("cpu")), batch_size=10,
            mean=torch.tensor(MEAN), std=torch.tensor(STD),
        ).numpy()  # fmt: skip

    with torch.no_grad():  # random weights predict one class, with a tiny margin: change both
        model.head.bias -= torch.from_numpy(logits().mean(axis=0))
        model.head.weight /= (scale := float(logits().std()))
        model.head.bias /= scale
    table = predictions_table(logits(), split.labels, index, CLASSES, None)
    assert table.predicted.nunique() > 2
    return Setting(model, origin, split, table)


@pytest.fixture(params=["vit", "convmixer", "resnet18_ln"])
def setting(request: pytest.FixtureRequest, demo_params: Params) -> Setting:
    return make_setting(request.param, demo_params)


@pytest.fixture
def convmixer(demo_params: Params) -> Setting:
    return make_setting("convmixer", demo_params)


def run(
    setting: Setting, rows: pd.DataFrame, batch_size: int = 7, method: str = "gradcam"
) -> Explanations:
    explainer = Explainer(setting.model, setting.origin, method, batch_size)
    with torch.no_grad():
        logits = explainer.predict(explainer.normalized(setting.split.images))
    explainer.check(setting.split, rows, logits)
    return explainer.explain(setting.split, rows)


def assert_maps_close(first: Explanations, second: Explanations) -> None:
    for found, expected in ((first.predicted, second.predicted), (first.true, second.true)):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.thorough
def test_each_row_has_maps_of_its_image(setting: Setting) -> None:
    rows = setting.table.sample(frac=0.7, random_state=1)
    assert not rows["index"].is_monotonic_increasing
    found = run(setting, rows)
    assert found.index.tolist() == rows["index"].tolist()
    for number, row in enumerate(rows.to_dict("records")):
        (place,) = np.flatnonzero(setting.split.index == row["index"])
        assert CLASSES[setting.split.labels[place]] == row["true"]
        image = torch.from_numpy(setting.split.images[[place]])
        batch = normalize(image, torch.tensor(MEAN), torch.tensor(STD))
        for maps, name in ((found.predicted, row["predicted"]), (found.true, row["true"])):
            (expected,) = class_activation_maps(
                setting.model, setting.model.cam_layer, setting.model.cam_map, batch,
                torch.tensor([CLASSES.index(name)]),
            )  # fmt: skip
            np.testing.assert_allclose(
                maps[number], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
            )


def test_correct_predictions_have_one_map(setting: Setting) -> None:
    found = run(setting, setting.table)
    same = (setting.table.true == setting.table.predicted).to_numpy()
    assert 0 < same.sum() < N
    np.testing.assert_array_equal(found.predicted[same], found.true[same])
    differs = (found.predicted != found.true).any(axis=(1, 2))
    assert differs[~same].all()


@pytest.mark.thorough
def test_order_and_batch_size_change_nothing(setting: Setting) -> None:
    whole = run(setting, setting.table, N)
    for batch_size in (1, 5, 500):
        assert_maps_close(run(setting, setting.table, batch_size), whole)
    reversed_rows = run(setting, setting.table[::-1])
    assert reversed_rows.index.tolist() == whole.index[::-1].tolist()
    assert_maps_close(reversed_rows.of(whole.index), whole)


def test_repeated_row_is_explained_twice(convmixer: Setting) -> None:
    rows = convmixer.table.iloc[[3, 3, 1]]
    found = run(convmixer, rows)
    np.testing.assert_allclose(found.predicted[0], found.predicted[1], rtol=1e-4, atol=1e-6)
    assert found.index[0] == found.index[1] != found.index[2]


def test_rows_from_a_file_give_equal_maps(convmixer: Setting, tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", convmixer.table)
    found = run(convmixer, read_table(tmp_path / "rows.csv"))
    assert_maps_close(found, run(convmixer, convmixer.table))
    assert found.method == "gradcam"


@pytest.mark.parametrize("from_file", [False, True])
def test_no_rows_give_no_maps(setting: Setting, from_file: bool, tmp_path: Path) -> None:
    rows = setting.table[:0]
    if from_file:
        write_csv(tmp_path / "rows.csv", rows)
        rows = read_table(tmp_path / "rows.csv")
    found = run(setting, rows)
    assert found.method == "gradcam"
    assert found.index.dtype == np.int64
    assert len(found.index) == len(found.predicted) == len(found.true) == 0
    assert found.predicted.ndim == found.true.ndim == 3


def test_changed_prediction_is_refused(setting: Setting) -> None:
    rows = setting.table.copy()
    row = rows.iloc[17]
    rows.loc[17, "predicted"] = next(name for name in CLASSES if name != row["predicted"])
    problem = rf"does not predict what its predictions.csv says, .* test image {row['index']}:"
    with pytest.raises(UserError, match=problem):
        run(setting, rows)


def test_other_network_is_refused(convmixer: Setting) -> None:
    with torch.no_grad():
        convmixer.model.head.weight.neg_()
    with pytest.raises(UserError, match="dvc repro evaluate@convmixer"):
        run(convmixer, convmixer.table)


def test_either_of_equal_logits_is_accepted(convmixer: Setting) -> None:
    """With equal logits, the table may name another class than argmax."""
    with torch.no_grad():
        for parameter in convmixer.model.head.parameters():
            parameter[1:] = parameter[:1]
    rows = convmixer.table.assign(predicted=[CLASSES[i % 5] for i in range(N)])
    assert len(run(convmixer, rows).predicted) == N


def test_image_of_other_split_is_refused(convmixer: Setting) -> None:
    rows = convmixer.table.copy()
    rows.loc[5, "index"] += 1
    assert rows["index"][5] not in convmixer.split.index
    with pytest.raises(KeyError, match="not in this split"):
        run(convmixer, rows)


def test_images_are_normalised_by_the_origin(convmixer: Setting) -> None:
    other = replace(convmixer, origin=replace(convmixer.origin, mean=[0.9, 0.1, 0.9]))
    with pytest.raises(UserError, match="does not predict"):
        run(other, convmixer.table)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", ["libragrad", "gradient_attention", "attention_rollout", "layercam"]
)
def test_vit_is_explained_by_other_methods(demo_params: Params, method: str) -> None:
    setting = make_setting("vit", demo_params)
    found = run(setting, setting.table, method=method)
    assert found.predicted.shape == (N, 8, 8)
    wrong = (setting.table.true != setting.table.predicted).to_numpy()
    differs = (found.predicted != found.true).any(axis=(1, 2))
    if method == "attention_rollout":  # class-agnostic
        assert not differs.any()
    else:
        assert differs.tolist() == wrong.tolist()
    others = {"gradcam", "libragrad", "gradient_attention", "layercam"} - {method}
    for other in others:
        maps = run(setting, setting.table, method=other).predicted
        assert not np.allclose(found.predicted, maps), other


def test_correct_rows_are_explained(convmixer: Setting) -> None:
    rows = convmixer.table[convmixer.table.true == convmixer.table.predicted]
    assert len(rows) > 0
    found = run(convmixer, rows)
    assert found.predicted.shape == (
        len(rows),
        *run(convmixer, convmixer.table).predicted.shape[1:],
    )
    np.testing.assert_array_equal(found.true, found.predicted)
    empty = Explainer(convmixer.model, convmixer.origin, "gradcam", 7).maps(
        convmixer.split.images[:0], np.empty(0, np.int64)
    )
    assert len(empty) == 0


def test_class_agnostic_method_computes_one_map(
    convmixer: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    maps = Explainer.maps
    monkeypatch.setattr(Explainer, "maps", lambda *given: calls.append(given) or maps(*given))
    found = run(convmixer, convmixer.table, N, method="eigencam")
    assert len(calls) == 1
    assert not found.class_specific
    np.testing.assert_array_equal(found.predicted, found.true)


def test_predictions_in_batches_equal_whole_batch(convmixer: Setting) -> None:
    explainer = Explainer(convmixer.model, convmixer.origin, "gradcam", 7)
    batch = normalize(
        torch.from_numpy(convmixer.split.images), torch.tensor(MEAN), torch.tensor(STD)
    )
    sizes = []
    convmixer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        found = explainer.predict(batch)
        assert sizes == [7, 7, 7, 3]
        torch.testing.assert_close(found, convmixer.model(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label", [None, "maps of vit"])
def test_progress_bar_is_shown_on_request(
    convmixer: Setting, label: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(convmixer.model, convmixer.origin, "gradcam", 7)
    for stream in (Terminal(), io.StringIO()):
        replace_stderr(monkeypatch, stream)
        explainer.explain(convmixer.split, convmixer.table[:10], label)
        shown = stream.getvalue()
        if label is None or not stream.isatty():
            assert shown == ""
        else:
            assert shown.startswith("\rmaps of vit:   0%")
            assert "0/2" in shown
            assert "? batches/s" in shown
            assert shown.endswith("\r")  # removed at the end
