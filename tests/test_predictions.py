"""The predictions table: its columns, reading it back, and detection of damage."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.evaluation.metrics import compute_metrics
from cifarpipe.results.predictions import predictions_table, read_predictions
from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split
from tests.support.logits import ODD_NAMES, draw_logits


def test_predictions_table_by_hand() -> None:
    logits = np.array([[0, math.log(3)], [2, 2]], np.float32)
    table = predictions_table(
        logits, np.array([0, 1]), np.array([4, 9]), ["cat", "dog"], ["cat/a.png", "dog/b.png"]
    )
    assert table.to_dict("records") == [
        {
            "index": 4, "file": "cat/a.png", "true": "cat", "predicted": "dog",
            "confidence": 0.75, "true_probability": 0.25,
            "logit_0": 0.0, "logit_1": pytest.approx(1.09861),
        },
        {
            # Of two equal logits, the first is predicted.
            "index": 9, "file": "dog/b.png", "true": "dog", "predicted": "cat",
            "confidence": 0.5, "true_probability": 0.5, "logit_0": 2.0, "logit_1": 2.0,
        },
    ]  # fmt: skip


def test_class_names_stay_text(tmp_path: Path) -> None:
    logits, labels = draw_logits(n=60)
    files = [f"{ODD_NAMES[label]}/{i:03}" for i, label in enumerate(labels)]
    table = predictions_table(logits, labels, np.arange(60) * 3, ODD_NAMES, files)
    write_csv(tmp_path / "predictions.csv", table)
    found = read_table(tmp_path / "predictions.csv")
    assert list(found) == list(table)
    for column in ("true", "predicted", "file"):
        assert found[column].tolist() == table[column].tolist()
    assert set(found.true) == {ODD_NAMES[label] for label in labels}
    assert found["index"].tolist() == table["index"].tolist()
    assert found.confidence.tolist() == table.confidence.tolist()


def test_file_column_is_empty_without_files(tmp_path: Path) -> None:
    logits, labels = draw_logits(n=3)
    write_csv(tmp_path / "p.csv", predictions_table(logits, labels, np.arange(3), ODD_NAMES, None))
    assert read_table(tmp_path / "p.csv").file.tolist() == ["", "", ""]


def test_written_table_gives_the_same_metrics(tmp_path: Path) -> None:
    logits, labels = draw_logits()
    write_csv(
        tmp_path / "p.csv", predictions_table(logits, labels, np.arange(400), ODD_NAMES, None)
    )
    table = read_table(tmp_path / "p.csv")
    number = {name: label for label, name in enumerate(ODD_NAMES)}
    found = compute_metrics(
        table[[f"logit_{label}" for label in range(10)]].to_numpy(np.float32),
        table.true.map(number).to_numpy(),
        calibration_bins=15, temperature=None,
    )  # fmt: skip
    expected = compute_metrics(logits, labels, calibration_bins=15, temperature=None)
    assert found.keys() == expected.keys()
    for name, metric in expected.items():  # the last decimal place may be rounded differently
        assert found[name].value == pytest.approx(metric.value, abs=1.01e-4)
    assert (table.true != table.predicted).sum() == found["errors"].value
    true_probability = table.true_probability.to_numpy()
    assert -np.log(true_probability).mean() == pytest.approx(expected["loss"].value, rel=1e-3)
    hits = table.true == table.predicted
    assert (table.confidence[hits] == table.true_probability[hits]).all()
    assert (table.confidence[~hits] > table.true_probability[~hits]).all()


@dataclass(frozen=True)
class Evaluated:
    """The part of `Prepared` that the table is checked against."""

    test: Split
    classes: list[str]


def make_data(labels: np.ndarray, files: list[str] | None) -> Evaluated:
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return Evaluated(Split(images, labels, np.arange(len(labels)) * 3, files), ODD_NAMES)


def written(folder: Path, count: int = 40) -> tuple[Path, Evaluated, pd.DataFrame]:
    """Write a table; return its path, its test images and the table."""
    logits, labels = draw_logits(n=count)
    logits[0, :2] = logits[0].max() + 1  # two equal logits
    data = make_data(labels, [f"{number}.png" for number in range(count)])
    table = predictions_table(logits, labels, data.test.index, ODD_NAMES, data.test.files)
    write_csv(folder / "p.csv", table)
    return folder / "p.csv", data, table


def test_written_table_is_read(tmp_path: Path) -> None:
    path, data, table = written(tmp_path)
    found = read_predictions(path, data)
    for column in table:
        if str(column).startswith("logit"):
            np.testing.assert_allclose(found[column], table[column], rtol=1e-6)
        else:
            assert found[column].tolist() == table[column].tolist()


def test_missing_table_names_the_command(tmp_path: Path) -> None:
    _, data, _ = written(tmp_path)
    with pytest.raises(UserError, match=r"gone.csv does not exist. Run `dvc repro`"):
        read_predictions(tmp_path / "gone.csv", data)


def test_logits_of_any_size_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(0, 1, (200, 10)) * 10.0 ** rng.integers(-6, 7, (200, 1))).astype("f4")
    data = make_data(rng.integers(0, 10, 200), None)
    table = predictions_table(logits, data.test.labels, data.test.index, ODD_NAMES, None)
    write_csv(tmp_path / "p.csv", table)
    assert len(read_predictions(tmp_path / "p.csv", data)) == 200


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("index", 10, "column `index`"),
        ("file", "4.png", "column `file`"),
        ("true", "elsewhere", "column `true`"),
        ("predicted", "elsewhere", "column `predicted`"),
        ("confidence", 0.0123, "column `confidence`"),
        ("confidence", "much", "column `confidence`"),
        ("true_probability", 0.5, "column `true_probability`"),
        ("logit_4", 12.5, "column"),
        ("logit_4", "12,5", "logit columns are missing"),
    ],
)
def test_changed_value_is_detected(
    column: str, value: object, problem: str, tmp_path: Path
) -> None:
    path, data, table = written(tmp_path)
    table = table.astype({column: object})
    table.loc[3, column] = value
    write_csv(path, table)
    with pytest.raises(UserError, match="is not what `evaluate` wrote") as refused:
        read_predictions(path, data)
    assert problem in str(refused.value)


def test_other_predicted_class_needs_equal_logits(tmp_path: Path) -> None:
    path, data, table = written(tmp_path)
    table.loc[0, "predicted"] = ODD_NAMES[1]
    write_csv(path, table)
    assert read_predictions(path, data).predicted[0] == ODD_NAMES[1]
    table.loc[1, "predicted"] = ODD_NAMES[(ODD_NAMES.index(table.predicted[1]) + 1) % 10]
    write_csv(path, table)
    with pytest.raises(UserError, match="column `predicted` does not match the largest logit"):
        read_predictions(path, data)


def test_missing_rows_and_columns_are_detected(tmp_path: Path) -> None:
    path, data, table = written(tmp_path)
    write_csv(path, table[:-1])
    with pytest.raises(UserError, match="39 rows, not 40"):
        read_predictions(path, data)
    write_csv(path, table.drop(columns="file"))
    with pytest.raises(UserError, match="other columns"):
        read_predictions(path, data)


@pytest.mark.thorough
def test_truncated_table_is_refused(tmp_path: Path) -> None:
    path, data, _ = written(tmp_path)
    content = path.read_bytes()
    for length in range(0, len(content) - 3, 7):  # the last digits are within rounding
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_predictions(path, data)


@pytest.mark.thorough
def test_flipped_bit_changes_no_prediction(tmp_path: Path) -> None:
    path, data, table = written(tmp_path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(8 * len(content), 400, replace=False):
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        content[place // 8] ^= 1 << place % 8
        try:
            found = read_predictions(path, data)
        except UserError:
            refused += 1
            continue
        assert found.predicted.tolist() == table.predicted.tolist()
        np.testing.assert_allclose(found.confidence, table.confidence, atol=1.01e-4)
    assert refused > 300
