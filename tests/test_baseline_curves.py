"""The baseline curves that `report.baselines` names, and which files are rejected."""

from pathlib import Path

import pandas as pd
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.report.baseline_curves import check_baselines, read_baselines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.csv"


def test_epochs_are_counted_from_1(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfepoch,test_acc,seconds\r\n0,0.25,9\r\n\r\n1,,8\r\n")  # of Excel
    curve = read_baselines({"vit": str(file)})["vit"]
    expected = pd.DataFrame({"epoch": [1.0, 2.0], "val_acc": [0.25, None]})
    pd.testing.assert_frame_equal(curve, expected)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"epoch,test_acc\n", "has no rows"),
        (b"step,test_acc\n1,0.5\n", "has the columns step, test_acc"),
        (b"epoch,accuracy\n1,0.5\n", "has the columns epoch, accuracy"),
        (b"epoch;test_acc\n1;0.5\n", "has the columns epoch;test_acc"),
        (b"epoch,test_acc\n1,0.5\n2,high\n", "line 3: test_acc is 'high', not a number"),
        (b"epoch,test_acc\n\n,0.5\n", "line 3: epoch is '', not a number"),
        (b"epoch,test_acc\ninf,0.5\n", "line 2: epoch is 'inf', not a number"),
        (b"epoch,test_acc\n1,0.5,\n", "line 2 does not have 2 values"),
        (b"epoch,test_acc\n1\n", "line 2 does not have 2 values"),
        (b'epoch,test_acc\n1,"0.5\n', "unexpected end of data"),
    ],
)
def test_other_files_are_refused(file: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        file.write_bytes(content)
    good = file.with_name("good.csv")
    good.write_text("epoch,train_loss\n1,2.3\n")
    with pytest.raises(UserError) as refused:
        check_baselines({"good": str(good), "vit": str(file)})
    lines = str(refused.value).splitlines()
    assert lines[1:-1] == [f"  - report.baselines.vit: {file}: {problem}"]
    assert lines[-1].startswith("Expected: CSV with a column epoch and at least one of train_acc")


def test_other_encodings_are_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="'utf-8' codec can't decode byte 0xff"):
        check_baselines({"vit": str(file)})
