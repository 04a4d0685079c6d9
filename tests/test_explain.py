"""Rows of the predictions table explained: these very images, in this very order."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifarpipe.config.schema import Params
from cifarpipe.explanations.explainer import Explained, Explainer, map_maker
from cifarpipe.explanations.gradcam import class_activation_maps
from cifarpipe.models.build import as_classifier, build_model
from cifarpipe.networks.checkpoint import Origin
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.networks.normalize import normalize
from cifarpipe.results.predictions import predictions_table
from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split
from tests.support.origins import make_origin

CLASSES = ["zebra", "007", "ant", "true", "<b>"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
N = 24


@dataclass
class Setting:
    """A network with random weights, images and the table of its own predictions."""

    model: nn.Module
    origin: Origin
    split: Split
    table: pd.DataFrame


def make_setting(name: str, params: Params) -> Setting:
    rng = np.random.default_rng(0)
    index = np.sort(rng.choice(1000, N, replace=False))  # never the image's own place
    images = rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, len(CLASSES), N), index)
    torch.manual_seed(0)
    model = build_model(params.models[name], num_classes=len(CLASSES), image_size=32).eval()
    origin = make_origin(name, CLASSES, mean=MEAN, std=STD)

    def logits() -> np.ndarray:
        return compute_logits(
            model, ImageStore(images, torch.device("cpu")), batch_size=10,
            mean=torch.tensor(MEAN), std=torch.tensor(STD),
        ).numpy()  # fmt: skip

    with torch.no_grad():  # random weights favour one class, by next to nothing: mend both
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
) -> Explained:
    explainer = Explainer(setting.model, setting.origin, method, batch_size)
    return explainer.explain(setting.split, rows)


def assert_maps_close(first: Explained, second: Explained) -> None:
    for one, other in ((first.predicted, second.predicted), (first.true, second.true)):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())


def test_each_row_gets_the_maps_of_its_own_image(setting: Setting) -> None:
    rows = setting.table.sample(frac=0.7, random_state=1)
    assert not rows["index"].is_monotonic_increasing
    found = run(setting, rows)
    assert found.index.tolist() == rows["index"].tolist()
    parts = as_classifier(setting.model)
    for number, row in enumerate(rows.to_dict("records")):
        (place,) = np.flatnonzero(setting.split.index == row["index"])
        assert CLASSES[setting.split.labels[place]] == row["true"]
        picture = torch.from_numpy(setting.split.images[[place]])
        batch = normalize(picture, torch.tensor(MEAN), torch.tensor(STD))
        for maps, name in ((found.predicted, row["predicted"]), (found.true, row["true"])):
            (expected,) = class_activation_maps(
                setting.model, parts.cam_layer, parts.cam_map, batch,
                torch.tensor([CLASSES.index(name)]),
            )  # fmt: skip
            np.testing.assert_allclose(
                maps[number], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
            )


def test_predicted_and_true_are_one_map_where_they_are_one_class(setting: Setting) -> None:
    found = run(setting, setting.table)
    same = (setting.table.true == setting.table.predicted).to_numpy()
    assert 0 < same.sum() < N
    np.testing.assert_array_equal(found.predicted[same], found.true[same])
    differs = (found.predicted != found.true).any(axis=(1, 2))
    assert differs[~same].all()


def test_order_and_batch_size_do_not_matter(setting: Setting) -> None:
    whole = run(setting, setting.table, N)
    for batch_size in (1, 5, 500):
        assert_maps_close(run(setting, setting.table, batch_size), whole)
    backwards = run(setting, setting.table[::-1])
    assert_maps_close(
        Explained(backwards.index[::-1], backwards.predicted[::-1], backwards.true[::-1]), whole
    )


def test_a_row_may_stand_twice(convmixer: Setting) -> None:
    rows = convmixer.table.iloc[[3, 3, 1]]
    found = run(convmixer, rows)
    np.testing.assert_allclose(found.predicted[0], found.predicted[1], rtol=1e-4, atol=1e-6)
    assert found.index[0] == found.index[1] != found.index[2]


def test_rows_read_from_a_file_are_as_good(convmixer: Setting, tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", convmixer.table)
    found = run(convmixer, read_table(tmp_path / "rows.csv"))
    assert_maps_close(found, run(convmixer, convmixer.table))


@pytest.mark.parametrize("from_file", [False, True])
def test_no_rows_give_no_maps(setting: Setting, from_file: bool, tmp_path: Path) -> None:
    rows = setting.table[:0]
    if from_file:
        write_csv(tmp_path / "rows.csv", rows)
        rows = read_table(tmp_path / "rows.csv")
    found = run(setting, rows)
    assert found.index.dtype == np.int64
    assert len(found.index) == len(found.predicted) == len(found.true) == 0
    assert found.predicted.ndim == found.true.ndim == 3


def test_a_table_of_another_run_is_refused(setting: Setting) -> None:
    rows = setting.table.copy()
    row = rows.iloc[17]
    rows.loc[17, "predicted"] = next(name for name in CLASSES if name != row["predicted"])
    with pytest.raises(RuntimeError, match=rf"no longer predicts .* test image {row['index']}:"):
        run(setting, rows)


def test_another_network_is_refused(convmixer: Setting) -> None:
    with torch.no_grad():
        convmixer.model.head.weight.neg_()
    with pytest.raises(RuntimeError, match="model and predictions are not of one run"):
        run(convmixer, convmixer.table)


def test_a_tie_may_go_either_way(convmixer: Setting) -> None:
    """Two classes made equal: the table may name the one that argmax does not take."""
    with torch.no_grad():
        for parameter in convmixer.model.head.parameters():
            parameter[1:] = parameter[:1]
    rows = convmixer.table.assign(predicted=[CLASSES[i % 5] for i in range(N)])
    assert len(run(convmixer, rows).predicted) == N


def test_other_true_classes_are_refused(convmixer: Setting) -> None:
    rows = convmixer.table.copy()
    rows.loc[5, "true"] = next(name for name in CLASSES if name != rows.true[5])
    with pytest.raises(RuntimeError, match="true classes are not those of the test split"):
        run(convmixer, rows)


def test_an_image_of_another_split_is_refused(convmixer: Setting) -> None:
    rows = convmixer.table.copy()
    rows.loc[5, "index"] += 1
    assert rows["index"][5] not in convmixer.split.index
    with pytest.raises(KeyError, match="not in this split"):
        run(convmixer, rows)


def test_images_are_seen_as_in_evaluation(convmixer: Setting) -> None:
    """Normalised by the network's own numbers: by others it predicts something else."""
    other = replace(convmixer, origin=replace(convmixer.origin, mean=[0.9, 0.1, 0.9]))
    with pytest.raises(RuntimeError, match="no longer predicts"):
        run(other, convmixer.table)


def test_the_check_of_the_predictions_runs_without_hooks(convmixer: Setting) -> None:
    """Within the hooks, a forward pass for anything else would keep every activation."""
    layer = as_classifier(convmixer.model).cam_layer
    found = []
    convmixer.model.register_forward_pre_hook(
        lambda *_: found.append((len(layer._forward_hooks), torch.is_grad_enabled()))
    )
    run(convmixer, convmixer.table, N)
    assert found == [(0, False), (2, True), (2, True)]  # the check, then predicted and true
    assert not layer._forward_hooks


def make_explained(seed: int = 0) -> Explained:
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(2, 4, 3, 3)).astype(np.float32)
    return Explained(np.array([5, 2, 9, 4]), maps[0], maps[1])


def test_some_images_get_their_own_maps_in_the_order_asked() -> None:
    maps = make_explained()
    some = maps.of(np.array([9, 5, 4, 9]))
    assert some.index.tolist() == [9, 5, 4, 9]
    rows = [2, 0, 3, 2]
    np.testing.assert_array_equal(some.predicted, maps.predicted[rows])
    np.testing.assert_array_equal(some.true, maps.true[rows])
    assert len(maps.of(np.empty(0, np.int64)).index) == 0
    for unknown in (0, 3, 10):
        with pytest.raises(KeyError):
            maps.of(np.array([5, unknown]))


@pytest.mark.parametrize("method", ["gradient_attention", "attention_rollout", "layercam"])
def test_a_vit_can_be_explained_by_other_methods(demo_params: Params, method: str) -> None:
    setting = make_setting("vit", demo_params)
    found = run(setting, setting.table, method=method)
    assert found.predicted.shape == (N, 8, 8)
    wrong = (setting.table.true != setting.table.predicted).to_numpy()
    differs = (found.predicted != found.true).any(axis=(1, 2))
    if method == "attention_rollout":  # which knows no class
        assert not differs.any()
    else:
        assert differs.tolist() == wrong.tolist()
    others = {"gradcam", "gradient_attention", "attention_rollout", "layercam"} - {method}
    for other in others:
        maps = run(setting, setting.table, method=other).predicted
        assert not np.allclose(found.predicted, maps), other


def test_a_network_without_errors_is_explained(convmixer: Setting) -> None:
    rows = convmixer.table[convmixer.table.true == convmixer.table.predicted]
    assert len(rows) > 0
    found = run(convmixer, rows)
    assert found.predicted.shape == (
        len(rows),
        *run(convmixer, convmixer.table).predicted.shape[1:],
    )
    np.testing.assert_array_equal(found.true, found.predicted)
    nothing = Explainer(convmixer.model, convmixer.origin, "gradcam", 7).maps(
        convmixer.split.images[:0], np.empty(0, np.int64)
    )
    assert len(nothing) == 0


def test_classes_are_not_asked_of_a_method_that_knows_none(
    convmixer: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    maps = Explainer.maps
    monkeypatch.setattr(Explainer, "maps", lambda *given: calls.append(given) or maps(*given))
    found = run(convmixer, convmixer.table, N, method="eigencam")
    assert len(calls) == 1
    np.testing.assert_array_equal(found.predicted, found.true)


def test_attention_is_not_asked_of_a_network_without(convmixer: Setting) -> None:
    with pytest.raises(ValueError, match="needs a network with attention"):
        map_maker(convmixer.model, "attention_rollout")
