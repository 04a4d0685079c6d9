"""Reviews: changed predictions, significant changes of metrics, and the comment."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cifarpipe.cli.review.changes import (
    beyond_intervals,
    changed_values,
    compare_models,
    compare_predictions,
    metric_changes,
    worse_confusions,
)
from cifarpipe.cli.review.comment import MAX_CHARACTERS, render_review
from cifarpipe.cli.review.snapshot import (
    ModelSnapshot,
    Snapshot,
    Workspace,
    read_maps,
    read_snapshot,
)
from cifarpipe.config.errors import UserError
from cifarpipe.evaluation.metrics import compute_metrics, confusion_matrix, confusion_table
from cifarpipe.report.templating import cell
from cifarpipe.results.digests import write_digests
from cifarpipe.results.maps import Explanations, save_explanations
from cifarpipe.results.metrics import Metric, metrics_table
from cifarpipe.results.predictions import predictions_table
from cifarpipe.store.outputs import write_text
from cifarpipe.store.paths import artifact, model_report

CLASSES = ["cat", "dog", "<b>|`x`"]
LABELS = np.arange(90) % 3


def result(predicted: np.ndarray, **extra: float) -> ModelSnapshot:
    """Return the results of a model with these predictions, with further metrics."""
    logits = (
        np.eye(3, dtype=np.float32)[predicted] * np.linspace(2, 4, 90, dtype=np.float32)[:, None]
    )
    metrics = compute_metrics(logits, LABELS, calibration_bins=15, temperature=None)
    metrics |= {name: Metric(value) for name, value in extra.items()}
    matrix = confusion_matrix(LABELS, predicted, 3)
    table = predictions_table(logits, LABELS, np.arange(90) * 10, CLASSES, None)
    return ModelSnapshot(metrics, confusion_table(matrix, CLASSES), table)


def wrong_in(*positions: int) -> np.ndarray:
    """Return predictions that are wrong at these positions only."""
    predicted = LABELS.copy()
    predicted[list(positions)] = (predicted[list(positions)] + 1) % 3
    return predicted


def snapshot(
    name: str, data: str = "d", /, params: dict | None = None, **models: ModelSnapshot
) -> Snapshot:
    return Snapshot(name, {"lr": 0.01} if params is None else params, data, models)


def review(before: Snapshot, after: Snapshot) -> str:
    return render_review(before, after, compare_models(before, after), {})


def test_predictions_are_compared_image_by_image() -> None:
    old, new = result(wrong_in(0, 1, 2)).predictions, result(wrong_in(2, 3, 50, 7)).predictions
    found = compare_predictions(old, new)
    assert found.broken["index"].tolist() == [500, 70, 30]  # the most confident first
    assert found.fixed["index"].tolist() == [10, 0]
    assert (found.broken.true != found.broken.predicted).all()
    assert (found.fixed.true != found.fixed.predicted).all()  # the former predictions
    assert found.other == 0
    swapped = new.assign(predicted=np.where(new["index"] == 20, "elsewhere", new.predicted))
    assert compare_predictions(old, swapped).other == 1


def test_predictions_of_other_images_are_not_compared() -> None:
    old = result(LABELS).predictions
    assert compare_predictions(old, old.assign(index=old["index"] + 1)) is None
    assert compare_predictions(old, old[:-1]) is None
    before, after = (
        snapshot("main", "d", vit=result(LABELS)),
        snapshot("w", "e", vit=result(LABELS)),
    )
    assert compare_models(before, after)[0].predictions == "other images"
    note = "The test images of vit differ from those of `main`"
    assert note in review(before, after)
    split = result(LABELS)
    split = ModelSnapshot(split.metrics, split.confusion, split.predictions[:-1])
    assert note in review(before, snapshot("w", "d", vit=split))  # the same data, split otherwise


def test_accuracies_on_another_source_are_not_comparable() -> None:
    params = [{"data.source": "folder", "data.folder": name} for name in ("one", "two")]
    before = snapshot("main", "d", params=params[0], vit=result(wrong_in(*range(60))))
    after = snapshot("workspace", "e", params=params[1], vit=result(LABELS))
    assert compare_models(before, after)[0].verdict == "not comparable"
    text = review(before, after)
    assert "- **vit: not comparable**" in text
    assert "The images are of another source or size than those of `main`" in text
    assert "intervals do not overlap" not in text
    assert "became more frequent" not in text
    moved = snapshot("workspace", "d", params=params[1], vit=result(LABELS))  # the same images
    assert compare_models(before, moved)[0].verdict == "better"


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((), tuple(range(6)), "worse"),  # p = 2 / 2**6 = 0.03
        ((), tuple(range(5)), "no significant difference"),  # p = 2 / 2**5 = 0.06
        (tuple(range(6)), (), "better"),
        ((1, 2), (1, 2), "the same"),
    ],
)
def test_verdict_follows_mcnemar_test(
    old: tuple[int, ...], new: tuple[int, ...], verdict: str
) -> None:
    before = snapshot("main", vit=result(wrong_in(*old)))
    after = snapshot("workspace", vit=result(wrong_in(*new)))
    (change,) = compare_models(before, after)
    assert change.verdict == verdict
    assert f"- **vit: {verdict}**" in review(before, after)


def test_verdicts_are_corrected_for_the_number_of_models() -> None:
    """Two models with p = 2 / 2**6 = 0.03, twice that when corrected; a third is unchanged."""
    old, new = result(wrong_in(*range(6))), result(LABELS)
    before = snapshot("main", vit=old, convmixer=old, resnet=new)
    after = snapshot("workspace", vit=new, convmixer=new, resnet=new)
    changes = compare_models(before, after)
    assert [change.verdict for change in changes] == [
        "no significant difference",
        "no significant difference",
        "the same",
    ]
    text = review(before, after)
    tested = "(McNemar's exact test: p = 0.031; 0.062 corrected for 2 models)"
    assert text.count(f"6 test images fixed, 0 broken {tested}") == 2
    after = snapshot("workspace", vit=new, convmixer=old, resnet=new)
    assert compare_models(before, after)[0].verdict == "better"


def test_models_without_fixed_or_broken_images_are_not_counted() -> None:
    """One model's predictions change from wrong to wrong: the other's p-value stays as it is."""
    old, new = result(wrong_in(*range(6))), result(LABELS)
    first, second = (LABELS.copy() for _ in range(2))
    first[0], second[0] = (LABELS[0] + 1) % 3, (LABELS[0] + 2) % 3
    before = snapshot("main", vit=old, convmixer=result(first))
    after = snapshot("workspace", vit=new, convmixer=result(second))
    changes = compare_models(before, after)
    assert [change.verdict for change in changes] == ["better", "no significant difference"]
    text = review(before, after)
    assert "(McNemar's exact test: p = 0.031)" in text
    assert "corrected" not in text


def test_without_predictions_fishers_exact_test_decides_the_verdict() -> None:
    """5 and 0 errors of 90 images have p = 0.059, 6 and 0 have 0.029."""
    base = result(LABELS)
    before = snapshot("main", vit=ModelSnapshot(base.metrics, base.confusion, None))

    def after(errors: int) -> Snapshot:
        return snapshot("workspace", vit=result(wrong_in(*range(errors))))

    (change,) = compare_models(before, after(6))
    assert change.verdict == "worse"
    assert change.p == pytest.approx(scipy.stats.fisher_exact([[0, 90], [6, 84]]).pvalue)
    text = review(before, after(6))
    assert "**vit: worse**, 100.00% → 93.33% (Fisher's exact test: p = 0.029)" in text
    assert "The predictions of vit are not all available" in text
    assert compare_models(before, after(5))[0].verdict == "no significant difference"


def test_models_of_equal_confusions_are_not_tested() -> None:
    base, worse = result(LABELS), result(wrong_in(*range(6)))
    unknown = ModelSnapshot(base.metrics, base.confusion, None)
    before = snapshot("main", vit=unknown, convmixer=unknown)
    changes = compare_models(before, snapshot("workspace", vit=worse, convmixer=base))
    assert [change.verdict for change in changes] == ["worse", "no significant difference"]
    assert changes[1].p is None


def test_models_with_and_without_predictions_are_corrected_together() -> None:
    base, worse = result(LABELS), result(wrong_in(*range(6)))
    unknown = ModelSnapshot(base.metrics, base.confusion, None)
    before = snapshot("main", vit=unknown, convmixer=base)
    changes = compare_models(before, snapshot("workspace", vit=worse, convmixer=worse))
    assert [change.p_holm for change in changes] == pytest.approx([0.0578, 0.0578], abs=5e-4)
    assert {change.verdict for change in changes} == {"no significant difference"}


def test_metrics_with_disjoint_intervals_are_listed() -> None:
    old = {"a": Metric(0.5, 0.4, 0.6), "b": Metric(1.0, 0.9, 1.1), "c": Metric(3)}
    new = {"a": Metric(0.7, 0.61, 0.8), "b": Metric(1.2, 1.1, 1.3), "c": Metric(4)}
    assert beyond_intervals(old, new) == ["a"]
    assert beyond_intervals(new, old) == ["a"]
    assert beyond_intervals({"a": Metric(0.5)}, new) == []


def test_more_frequent_confusions_are_listed() -> None:
    old = confusion_table(np.array([[5, 1, 2], [0, 9, 0], [3, 0, 6]]), CLASSES)
    new = confusion_table(np.array([[1, 4, 3], [0, 9, 0], [0, 0, 9]]), CLASSES)
    found = worse_confusions(old, new)
    assert found[["true", "predicted", "before", "after"]].to_numpy().tolist() == [
        ["cat", "dog", 1, 4], ["cat", CLASSES[2], 2, 3],
    ]  # fmt: skip


def test_changed_values_have_old_and_new() -> None:
    old, new = (
        {"same": 1, "gone": 2, "moved": 0.1},
        {"same": 1, "moved": 0.3, "new": None, "it": "x"},
    )
    assert changed_values(old, new) == [("gone", 2, None), ("moved", 0.1, 0.3), ("it", None, "x")]


def test_metric_changes_have_difference_of_numbers() -> None:
    old = {"same": Metric(1), "moved": Metric(0.1, 0.05, 0.2)}
    new = {"same": Metric(1), "moved": Metric(0.3), "new": Metric(2)}
    assert metric_changes(old, new) == [
        ("moved", 0.1, 0.3, 0.2), ("new", None, 2, None),
    ]  # fmt: skip


def test_comment_is_complete_and_within_size_limit() -> None:
    old = result(wrong_in(1, 2), **{f"metric_{i}": 0.5 for i in range(3000)})
    new = result(wrong_in(1, 5), **{f"metric_{i}": 0.6 for i in range(3000)})
    before = snapshot("main", params={"lr": 0.01, "b": [1]}, vit=old, gone=old)
    after = snapshot("workspace", params={"lr": 0.005, "b": [1, 2]}, vit=new, new=new)
    text = review(before, after)
    assert len(text) <= MAX_CHARACTERS
    assert "| lr | 0.01 | 0.005 |" in text
    assert "| b | [1] | [1, 2] |" in text
    assert "- New: **new**, 97.78%" in text
    assert "- Removed: gone" in text
    assert "1 test images fixed, 1 broken (McNemar's exact test: p = 1)" in text
    assert "more, in `metrics.csv` and `gradcam.csv` of `reports/models/*/`." in text
    assert "| vit.metric_0 | 0.5 | 0.6 | +0.1 |" in text


def test_many_changed_parameters_are_cut() -> None:
    one = result(LABELS)
    before = snapshot("main", params={f"models.m{i}.depth": 1 for i in range(5000)}, vit=one)
    after = snapshot("w", params={f"models.m{i}.depth": 2 for i in range(5000)}, vit=one)
    text = review(before, after)
    assert len(text) <= MAX_CHARACTERS
    assert "| models.m0.depth | 1 | 2 |" in text
    rows = text.count("| 1 | 2 |")
    assert f"\n\n{5000 - rows} more: `dvc params diff main`.\n" in text


def test_equal_snapshots_are_the_same() -> None:
    one = snapshot("main", vit=result(wrong_in(1)))
    text = review(one, one)
    assert "- **vit: the same**\n" in text
    assert "### Changed parameters\nNone.\n" in text
    assert "<details>" not in text
    assert "became more frequent" not in text


def test_names_do_not_break_the_table() -> None:
    assert cell("a|`b`\nc") == "a\\|\\`b\\` c"
    before = snapshot("main", vit=result(LABELS))
    text = review(before, snapshot("workspace", vit=result(wrong_in(1, 4, 7))))
    rows = [line for line in text.split("\n") if "→" in line and line.startswith("| vit")]
    assert rows == ["| vit | dog → &lt;b&gt;\\|\\`x\\` | 0 | 3 |"]


def test_maps_of_another_run_are_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_maps(Workspace(), "vit") is None  # there are none
    path = artifact("vit", "cams.npz")
    maps = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    save_explanations(path, Explanations("gradcam", np.arange(2), maps, maps, True))
    assert read_maps(Workspace(), "vit") is None
    assert "note: maps of vit have no digest." in capsys.readouterr().err
    write_digests("vit", "explained.csv", "cams.npz")
    found = read_maps(Workspace(), "vit")
    assert found is not None
    assert np.array_equal(found.predicted, maps)
    assert capsys.readouterr().err == ""
    write_text(model_report("vit", "explained.csv"), "name,value\ncams.npz,sha256:0\n")
    assert read_maps(Workspace(), "vit") is None
    assert "maps of vit and metrics differ: run `dvc checkout`" in capsys.readouterr().err
    write_text(model_report("vit", "explained.csv"), "cams.npz,sha256:0\n")
    with pytest.raises(UserError, match=r"explained.csv of workspace can't be read: its columns"):
        read_maps(Workspace(), "vit")


MARKERS = "<<<<<<< HEAD\n{first}=======\n{second}>>>>>>> other\n"


@pytest.mark.parametrize(
    "name",
    [
        "params.yaml", "reports/dataset.json",
        *(f"reports/models/vit/{file}.csv" for file in ("metrics", "confusion", "gradcam")),
    ],
)  # fmt: skip
def test_conflict_markers_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a merge, git leaves both versions in a file."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "params.yaml": "models:\n  vit: {}\n",
        "reports/dataset.json": '{"dataset": {"fingerprint": "d"}}\n',
        "reports/models/vit/metrics.csv": metrics_table(result(LABELS).metrics).to_csv(index=False),
        "reports/models/vit/confusion.csv": result(LABELS).confusion.to_csv(index=False),
        "reports/models/vit/gradcam.csv": "metric,value\nroad,0.5\n",
    }
    for path, text in texts.items():
        write_text(path, text)
    assert read_snapshot(Workspace()).models["vit"].metrics["gradcam.road"] == Metric(0.5)
    write_text(name, MARKERS.format(first=texts[name], second=texts[name]))
    with pytest.raises(UserError, match=f"{name} of workspace can't be read: ") as refused:
        read_snapshot(Workspace())
    assert "conflict markers" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("reports/dataset.json", '{"dataset": []}', "'list' object has no attribute 'get'"),
        ("reports/models/vit/confusion.csv", "", "No columns to parse from file"),
        ("reports/models/vit/metrics.csv", "metric,value\naccuracy,\n", "'accuracy' has no value"),
    ],
)
def test_damaged_files_are_named(
    name: str, text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("params.yaml", "models:\n  vit: {}\n")
    for file, table in (
        ("metrics", metrics_table(result(LABELS).metrics)),
        ("confusion", result(LABELS).confusion),
    ):
        write_text(f"reports/models/vit/{file}.csv", table.to_csv(index=False))
    assert read_snapshot(Workspace()).data is None
    write_text(name, text)
    with pytest.raises(UserError, match=f"{name} of workspace can't be read: {reason}"):
        read_snapshot(Workspace())


def test_parameters_that_are_not_utf8_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(b"models: {}  # caf\xe9\n")
    with pytest.raises(UserError, match=r"params.yaml of workspace can't be read: 'utf-8' codec"):
        read_snapshot(Workspace())
