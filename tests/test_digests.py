"""Digests of artifacts in a model's reports: artifacts of another run are refused."""

from pathlib import Path

import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.results.digests import digests, require_digests
from cifarpipe.store.outputs import write_json, write_text
from cifarpipe.store.paths import artifact, model_report

REPORT = "explanations.json"


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The content of a report on two artifacts."""
    monkeypatch.chdir(tmp_path)
    write_text(artifact("vit", "a.csv"), "abc")
    write_text(artifact("vit", "b.csv"), "")
    content = {"trained_on": "CPU", "digests": digests("vit", "a.csv", "b.csv")}
    write_json(model_report("vit", REPORT), content)
    return content


def test_reported_artifacts_are_accepted(reported: dict[str, object]) -> None:
    assert reported["digests"] == {
        "a.csv": "sha256:ba7816bf8f01cfea",
        "b.csv": "sha256:e3b0c44298fc1c14",
    }
    assert require_digests("vit", REPORT) == reported


@pytest.mark.usefixtures("reported")
def test_other_artifacts_are_refused() -> None:
    write_text(artifact("vit", "b.csv"), "abd")
    with pytest.raises(
        UserError, match=r"b.csv is not the file that .*explanations.json describes"
    ):
        require_digests("vit", REPORT)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digests": 3}'])
@pytest.mark.usefixtures("reported")
def test_damaged_reports_are_refused(text: str) -> None:
    write_text(model_report("vit", REPORT), text)
    with pytest.raises(UserError, match=r"explanations.json is damaged \(.*\).\nDelete it"):
        require_digests("vit", REPORT)
