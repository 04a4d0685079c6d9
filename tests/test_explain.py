"""Rows of the predictions table explained: these very images, in this very order."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from torch import nn

from cifarpipe.checkpoint import Origin
from cifarpipe.data.prepared import Split
from cifarpipe.data.store import ImageStore
from cifarpipe.evaluation import predictions_table, read_table
from cifarpipe.explain import (
    Explained,
    evidence_figures,
    explain,
    pointing_figures,
    save_maps,
)
from cifarpipe.gradcam import class_activation_maps
from cifarpipe.inference import compute_logits
from cifarpipe.models.build import as_classifier, build_model
from cifarpipe.normalize import normalize
from cifarpipe.outputs import write_csv
from cifarpipe.params import Params

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
    origin = Origin(
        name=name, entry={}, classes=CLASSES, image_size=32, mean=MEAN, std=STD,
        data_fingerprint="", seed=0, peak_lr=0.1, kept_epoch=1, val_accuracy=0.5,
        execution={},
    )  # fmt: skip

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


def run(setting: Setting, rows: pd.DataFrame, batch_size: int = 7) -> Explained:
    return explain(setting.model, setting.origin, setting.split, rows, batch_size)


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
    assert evidence_figures({"misclassified": found}) == {"without_evidence_misclassified": 0}
    figures = pointing_figures(found.predicted, np.empty((0, 32, 32), bool))
    assert figures["pointing_game_images"] == 0


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


def test_maps_are_read_back_as_they_were_saved(tmp_path: Path) -> None:
    explained = {"misclassified": make_explained(0), "correct": make_explained(1)}
    save_maps(tmp_path / "maps.npz", explained)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npz"]
    with np.load(tmp_path / "maps.npz") as file:  # which refuses pickles
        assert set(file) == {
            f"{name}_{field}" for name in explained for field in ("index", "predicted", "true")
        }
        for name, maps in explained.items():
            assert file[f"{name}_index"].tolist() == [5, 2, 9, 4]
            np.testing.assert_array_equal(file[f"{name}_predicted"], maps.predicted)
            np.testing.assert_array_equal(file[f"{name}_true"], maps.true)
            assert file[f"{name}_true"].dtype == np.float32


def test_equal_maps_give_equal_bytes_at_any_time(tmp_path: Path) -> None:
    for name in ("first", "again"):
        save_maps(tmp_path / f"{name}.npz", {"correct": make_explained()})
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.npz") as file:
        assert {entry.date_time[0] for entry in file.infolist()} == {1980}  # not today


def test_maps_without_evidence_are_counted_by_set() -> None:
    some, none = make_explained(), make_explained()
    some.predicted[[0, 2]] = -1
    some.true[1] = -1  # the true class is not what is counted
    figures = evidence_figures({"misclassified": some, "correct": none})
    assert figures == {"without_evidence_misclassified": 2, "without_evidence_correct": 0}


def test_pointing_figures_by_hand() -> None:
    maps = np.zeros((3, 2, 2), np.float32)
    maps[:, 0, 0] = 1
    masks = np.zeros((3, 4, 4), bool)
    masks[:2, :2, :2] = True
    masks[2, 2:, 2:] = True
    interval = scipy.stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert pointing_figures(maps, masks) == {
        "pointing_game_images": 3,
        "pointing_game": 0.6667,
        "pointing_game_low": round(interval.low, 4),
        "pointing_game_high": round(interval.high, 4),
        "pointing_game_centre": 0.25,
        "pointing_game_random": 0.25,
    }
