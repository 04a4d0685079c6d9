"""The summary in Markdown, and the curves of baseline runs."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params
from cifarpipe.report.cifar10 import CIFAR10_CLASSES
from cifarpipe.results.metrics import Metric
from cifarpipe.store.outputs import write_text
from tests.support.params_text import EXAMPLE
from tests.support.report_inputs import CLASSES, Report, make_dataset, make_report, make_results


@pytest.fixture
def report(demo_params: Params, tmp_path: Path) -> Report:
    return make_report(demo_params, tmp_path)


# The summary.


def test_markdown_escapes_names(report: Report) -> None:
    text = report.markdown()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; → 007" in text
    assert "<b " not in text
    assert "<img" not in text
    lines = text.splitlines()
    rows = [i for i, line in enumerate(lines) if line.startswith("| high |")]
    assert len(rows) == 5  # leaderboard, confusions, explanations and two pairs
    for row in rows:
        head = max(i for i in range(row) if lines[i].startswith("| ---"))
        # A pipe in a name adds no column.
        assert len(re.findall(r"(?<!\\)\|", lines[row])) == lines[head].count("|")
    assert r"\| piped" in lines[rows[1]]


def test_tta_accuracy_is_an_optional_column(report: Report) -> None:
    assert "with flip" not in report.markdown() + report.html()
    first = report.results[0]
    report.results[0] = replace(first, metrics=first.metrics | {"tta_accuracy": Metric(0.4321)})
    text = report.markdown()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = rows[: 1 + 1 + len(report.results)]
    assert len({len(row) for row in rows}) == 1
    assert rows[0][3] == "with flip"
    assert sorted(row[3] for row in rows[2:]) == sorted(["43.21%"] + ["–"] * (len(rows) - 3))
    assert ">43.21%</td>" in report.html()


def test_markdown_links_are_relative_and_exist(report: Report) -> None:
    text = report.markdown()
    write_text(report.folder / "summary.md", text)
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert links == ["curves.png", "models/high/gradcam.png"]
    assert all((report.folder / link).is_file() for link in links)
    assert "data:" not in text  # review comments remove it


def test_markdown_fits_a_review_comment(report: Report) -> None:
    classes = [f"{i}{'x' * 250}" for i in range(12)]  # as long as a folder's name may be
    report.dataset = make_dataset(classes)
    report.results = [
        make_results(report.folder, f"m{i}" + "y" * 57, n=120, classes=classes) for i in range(10)
    ]
    assert len(report.markdown()) < 60_000


def test_markdown_ends_with_provenance(report: Report) -> None:
    text = report.markdown()
    assert text.startswith("# ")
    assert "Python 3.11.9" in text.splitlines()[-1] or "Python 3.11.9" in text.splitlines()[-2]
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert "4000 train, 100 validation, 80 test images" in text
    assert "(selected on validation)" in text


# Baseline runs.


@pytest.fixture
def study() -> Params:
    return load_params(EXAMPLE)


def curves_of(study: Params, report: Report, classes: list[str]) -> dict[str, pd.DataFrame]:
    report.params, report.dataset = study, make_dataset(classes)
    return report.study().baselines


@pytest.mark.parametrize("classes", [CIFAR10_CLASSES[::-1], CIFAR10_CLASSES[:9], CLASSES])
def test_baselines_are_for_cifar10_only(study: Params, report: Report, classes: list[str]) -> None:
    assert curves_of(study, report, classes) == {}


def test_baselines_are_optional(report: Report) -> None:
    assert curves_of(report.params, report, CIFAR10_CLASSES) == {}


def test_baselines_have_our_columns_and_epochs(study: Params, report: Report) -> None:
    curves = curves_of(study, report, CIFAR10_CLASSES)
    assert study.report.baselines is not None
    assert list(curves) == list(study.report.baselines)
    for name, curve in curves.items():
        raw = pd.read_csv(study.report.baselines[name])
        assert {"epoch", "train_acc", "val_acc"} <= set(curve)
        assert not {"test_acc", "test_loss"} & set(curve)
        assert curve.val_acc.tolist() == raw.test_acc.tolist()
        assert (curve.epoch.diff().dropna() == 1).all()
    assert curves["vit"].epoch.tolist() == curves["vit_t2t"].epoch.tolist() == list(range(1, 26))
    # These count from 1, or start late in the run: their epochs are unchanged.
    assert curves["resnet18_ln_plateau"].epoch.min() == 1
    assert curves["resnet18_ln_plateau"].val_loss[0] == 2.156
    assert curves["resnet18_ln"].epoch.min() == 32


def test_page_mentions_baselines_only_if_drawn(report: Report, study: Params) -> None:
    report.params = study
    note = "Dashed: baseline runs"
    assert note not in report.html()
    report.dataset = make_dataset(CIFAR10_CLASSES)
    report.results = [make_results(report.folder, "vit", n=100, classes=CIFAR10_CLASSES)]
    assert note in report.html()
