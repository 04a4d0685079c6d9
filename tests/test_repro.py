"""`cifarpipe repro`: several models at a time, with the results of `dvc repro`."""

from pathlib import Path

import pytest
import yaml

from cifarpipe.cli.repro import sort_lock, stages
from tests.support.stubs import copy_with_stubs
from tests.support.study import run

MODELS = ("convmixer", "vit")
FAILING = "import sys\nif sys.argv[1:3] == ['train', '{model}']:\n    sys.exit('no memory')\n"


def stub_study(folder: Path) -> Path:
    """Make a study of stubs whose parameters are valid."""
    copy_with_stubs(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["models"] = {name: params["models"][name] for name in MODELS}
    del params["report"]["baselines"]  # of models that are not there
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def test_stages_of_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert stages() == (["prepare"], ["train", "evaluate", "misclassified", "gradcam", "figures"])


def test_lock_is_sorted_in_place(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    sort_lock(["a"], path)  # nothing to do without a file
    assert not path.exists()
    path.write_text("schema: '2.0'\nstages:\n  x: 1\n  b: 2\n  a: 3\n  y: 4\n")
    sort_lock(["a", "b", "c"], path)
    assert path.read_text() == "schema: '2.0'\nstages:\n  a: 3\n  b: 2\n  x: 1\n  y: 4\n"


@pytest.mark.dvc
def test_side_by_side_gives_the_lock_of_one_after_the_other(tmp_path: Path) -> None:
    one, several = stub_study(tmp_path / "one"), stub_study(tmp_path / "several")
    assert run(one, "dvc", "repro").returncode == 0
    done = run(several, "cifarpipe", "repro", "--jobs", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (several / "dvc.lock").read_bytes() == (one / "dvc.lock").read_bytes()
    for model in MODELS:
        assert f"{model} | Running stage 'train@{model}':" in done.stdout.splitlines()


@pytest.mark.dvc
def test_failed_model_does_not_stop_the_others(tmp_path: Path) -> None:
    folder, failing = stub_study(tmp_path / "study"), MODELS[0]
    stub = folder / "stub.py"
    stub.write_text(FAILING.format(model=failing) + stub.read_text())
    done = run(folder, "cifarpipe", "repro", "--jobs", "2")
    assert done.returncode == 1
    assert f"error: failed: {failing}. The report was not written" in done.stderr
    assert f"{failing} | no memory" in done.stdout.splitlines()
    finished = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert {f"figures@{model}" for model in MODELS[1:]} <= set(finished)
    assert not {f"train@{failing}", "report"} & set(finished)
    assert not (folder / "reports/index.html").exists()
