"""Digests of artifacts in a model's reports: artifacts of another run are refused."""

from pathlib import Path

import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.results.digests import read_digests, require_digests, write_digests
from cifarpipe.store.outputs import write_text
from cifarpipe.store.paths import artifact, model_report

REPORT = "evaluated.csv"
FILES = ("a.csv", "b.csv")


@pytest.fixture(autouse=True)
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report on two artifacts."""
    monkeypatch.chdir(tmp_path)
    write_text(artifact("vit", "a.csv"), "abc")
    write_text(artifact("vit", "b.csv"), "")
    write_digests("vit", REPORT, *FILES, trained_on="CPU, bf16")


def test_reported_artifacts_are_accepted() -> None:
    rows = {
        "trained_on": "CPU, bf16",
        "a.csv": "sha256:ba7816bf8f01cfea",
        "b.csv": "sha256:e3b0c44298fc1c14",
    }
    assert require_digests("vit", REPORT, *FILES) == rows
    assert read_digests(model_report("vit", REPORT)) == rows


def test_other_artifacts_are_refused() -> None:
    write_text(artifact("vit", "b.csv"), "abd")
    with pytest.raises(UserError, match=r"b.csv is not the file that .*evaluated.csv describes"):
        require_digests("vit", REPORT, *FILES)
    write_text(artifact("vit", "c.csv"), "abd")
    with pytest.raises(UserError, match=r"evaluated.csv is damaged \(it has no row 'c.csv'\)"):
        require_digests("vit", REPORT, "c.csv")


def test_absent_facts_are_refused() -> None:
    assert require_digests("vit", REPORT, "a.csv", facts=["trained_on"])["trained_on"]
    with pytest.raises(UserError, match=r"it has no row 'author'"):
        require_digests("vit", REPORT, "a.csv", facts=["author"])


@pytest.mark.parametrize("text", ["", "name\n", "a,b\n1,2\n"])
def test_damaged_reports_are_refused(text: str) -> None:
    write_text(model_report("vit", REPORT), text)
    with pytest.raises(UserError, match=r"evaluated.csv is damaged \(.*\).\nDelete it"):
        require_digests("vit", REPORT, *FILES)
