"""The predictions table: what it says, and that damage to it shows."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.evaluation.metrics import measure
from cifarpipe.results.predictions import predictions_table, read_predictions
from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.prepared import Split
from tests.test_evaluation import ODD_NAMES, draw


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
            "index": 9, "file": "dog/b.png", "true": "dog", "predicted": "cat",  # first of a tie
            "confidence": 0.5, "true_probability": 0.5, "logit_0": 2.0, "logit_1": 2.0,
        },
    ]  # fmt: skip


def test_names_stay_text_when_read_back(tmp_path: Path) -> None:
    logits, labels = draw(n=60)
    files = [f"{ODD_NAMES[label]}/{i:03}" for i, label in enumerate(labels)]
    table = predictions_table(logits, labels, np.arange(60) * 3, ODD_NAMES, files)
    write_csv(tmp_path / "predictions.csv", table)
    again = read_table(tmp_path / "predictions.csv")
    assert list(again) == list(table)
    for column in ("true", "predicted", "file"):
        assert again[column].tolist() == table[column].tolist()
    assert set(again.true) == {ODD_NAMES[label] for label in labels}
    assert again["index"].tolist() == table["index"].tolist()
    assert again.confidence.tolist() == table.confidence.tolist()


def test_without_files_the_column_is_empty(tmp_path: Path) -> None:
    logits, labels = draw(n=3)
    write_csv(tmp_path / "p.csv", predictions_table(logits, labels, np.arange(3), ODD_NAMES, None))
    assert read_table(tmp_path / "p.csv").file.tolist() == ["", "", ""]


def test_the_written_table_gives_the_same_figures(tmp_path: Path) -> None:
    logits, labels = draw()
    classes = ODD_NAMES
    write_csv(tmp_path / "p.csv", predictions_table(logits, labels, np.arange(400), classes, None))
    table = read_table(tmp_path / "p.csv")
    number = {name: label for label, name in enumerate(classes)}
    again = measure(
        table[[f"logit_{label}" for label in range(10)]].to_numpy(np.float32),
        table.true.map(number).to_numpy(),
        calibration_bins=15, temperature=1.0,
    )  # fmt: skip
    figures = measure(logits, labels, calibration_bins=15, temperature=1.0)
    assert again == pytest.approx(figures, abs=1.01e-4)  # a last place may round the other way
    assert (table.true != table.predicted).sum() == again["errors"] == figures["errors"]
    true_probability = table.true_probability.to_numpy()
    assert -np.log(true_probability).mean() == pytest.approx(figures["loss"], rel=1e-3)
    hits = table.true == table.predicted
    assert (table.confidence[hits] == table.true_probability[hits]).all()
    assert (table.confidence[~hits] > table.true_probability[~hits]).all()


def stored(folder: Path, count: int = 40) -> tuple[Path, Split, pd.DataFrame]:
    """Write a table; return where it is, its test images and the table."""
    logits, labels = draw(n=count)
    logits[0, :2] = logits[0].max() + 1  # a tie
    test = Split(np.zeros((count, 2, 2, 3), np.uint8), labels, np.arange(count) * 3)
    files = [f"{number}.png" for number in range(count)]
    table = predictions_table(logits, labels, test.index, ODD_NAMES, files)
    write_csv(folder / "p.csv", table)
    return folder / "p.csv", test, table


def read_again(path: Path, test: Split) -> pd.DataFrame:
    return read_predictions(path, test, ODD_NAMES, [f"{number}.png" for number in range(len(test))])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path, test, table = stored(tmp_path)
    again = read_again(path, test)
    for column in table:
        if str(column).startswith("logit"):
            np.testing.assert_allclose(again[column], table[column], rtol=1e-6)
        else:
            assert again[column].tolist() == table[column].tolist()


def test_logits_of_any_size_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(0, 1, (200, 10)) * 10.0 ** rng.integers(-6, 7, (200, 1))).astype("f4")
    labels = rng.integers(0, 10, 200)
    test = Split(np.zeros((200, 2, 2, 3), np.uint8), labels, np.arange(200))
    write_csv(tmp_path / "p.csv", predictions_table(logits, labels, test.index, ODD_NAMES, None))
    assert len(read_predictions(tmp_path / "p.csv", test, ODD_NAMES, None)) == 200


@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (3, "index", 10, "column `index`"),
        (3, "file", "4.png", "column `file`"),
        (3, "true", "elsewhere", "column `true`"),
        (3, "predicted", "elsewhere", "column `predicted`"),
        (3, "confidence", 0.0123, "column `confidence`"),
        (3, "confidence", "much", "column `confidence`"),
        (3, "true_probability", 0.5, "column `true_probability`"),
        (3, "logit_4", 12.5, "column"),
        (3, "logit_4", "12,5", "no logit of each class"),
    ],
)
def test_a_changed_value_shows(
    row: int, column: str, value: object, said: str, tmp_path: Path
) -> None:
    path, test, table = stored(tmp_path)
    table = table.astype({column: object})
    table.loc[row, column] = value
    write_csv(path, table)
    with pytest.raises(UserError, match="is not what `evaluate` wrote") as caught:
        read_again(path, test)
    assert said in str(caught.value)


def test_another_predicted_class_shows_unless_it_is_a_tie(tmp_path: Path) -> None:
    path, test, table = stored(tmp_path)
    table.loc[0, "predicted"] = ODD_NAMES[1]
    write_csv(path, table)
    assert read_again(path, test).predicted[0] == ODD_NAMES[1]
    other = ODD_NAMES[(ODD_NAMES.index(table.predicted[1]) + 1) % 10]
    table.loc[1, "predicted"] = other
    write_csv(path, table)
    with pytest.raises(UserError, match="column `predicted` is not the greatest logit's"):
        read_again(path, test)


def test_lost_rows_and_columns_show(tmp_path: Path) -> None:
    path, test, table = stored(tmp_path)
    write_csv(path, table[:-1])
    with pytest.raises(UserError, match="39 rows, not 40"):
        read_again(path, test)
    write_csv(path, table.drop(columns="file"))
    with pytest.raises(UserError, match="other columns"):
        read_again(path, test)


def test_a_table_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path, test, _ = stored(tmp_path)
    content = path.read_bytes()
    for length in range(0, len(content) - 3, 7):  # the end of a last digit is no loss
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_again(path, test)


def test_no_flipped_bit_changes_an_answer(tmp_path: Path) -> None:
    path, test, table = stored(tmp_path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(8 * len(content), 400, replace=False):
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        content[place // 8] ^= 1 << place % 8
        try:
            again = read_again(path, test)
        except UserError:
            refused += 1
            continue
        assert again.predicted.tolist() == table.predicted.tolist()
        np.testing.assert_allclose(again.confidence, table.confidence, atol=1.01e-4)
    assert refused > 300
