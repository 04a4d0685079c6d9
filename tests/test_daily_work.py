"""What people do every day with a study: try, compare, look, review. What reads changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cifarpipe.results.tables import read_table
from cifarpipe.store.outputs import write_csv
from tests.support.browsing import started_browser, visit
from tests.support.study_setting import (
    MODELS,
    environment,
    link_environment,
    make_study,
    run,
    succeed,
)

pytestmark = pytest.mark.dvc
# Of its versions, and of the smoothed curves in DVC's templates, which two epochs are too few for.
VEGA_WARNS = ("WARN ", "The compiled spec uses Vega v5")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two experiments: another rate, and another seed."""
    folder = make_study(tmp_path_factory.mktemp("study") / "clone")
    link_environment(folder)
    succeed(folder, "dvc", "exp", "run", "--name", "half", "-S", "lr=0.005")
    succeed(folder, "dvc", "exp", "run", "--name", "seed-1", "-S", "lr=0.01", "-S", "seed=1")
    succeed(folder, "git", "checkout", "-q", ".")
    succeed(folder, "dvc", "checkout", "-q")
    return folder


@pytest.fixture
def clean(study: Path) -> Path:
    """The study, which is as it was committed, before and after."""
    assert succeed(study, "git", "status", "--porcelain") == ""
    yield study
    assert succeed(study, "git", "status", "--porcelain") == ""


@pytest.fixture
def changed(study: Path) -> Path:
    """The study with the results of the experiment `half` in place."""
    succeed(study, "dvc", "exp", "apply", "half")
    yield study
    succeed(study, "git", "checkout", "-q", ".")
    succeed(study, "dvc", "checkout", "-q")


@pytest.mark.parametrize(
    "command",
    [
        "dvc exp show --no-pager",
        "dvc exp diff main half",
        "dvc metrics show",
        "dvc metrics diff main",
        "dvc params diff main",
        "dvc plots show",
        "dvc plots diff main half",
        "dvc status",
        "cifarpipe sweep",
        "cifarpipe review main",
        "make -s -o .venv/.ready experiments",
        "make -s -o .venv/.ready progress",
        "make -s -o .venv/.ready current",
    ],
)
def test_what_only_reads_changes_nothing(clean: Path, command: str) -> None:
    succeed(clean, *command.split())
    assert succeed(clean, "git", "status", "--porcelain") == ""


def test_experiments_are_shown_with_few_columns(clean: Path) -> None:
    shown = succeed(clean, "make", "-s", "-o", ".venv/.ready", "experiments")
    names = [name.strip() for name in shown.splitlines()[0].strip("| ").split("|")]
    assert set(names) == {"Experiment", "seed", "lr"} | {
        f"{model}.{figure}" for model in MODELS for figure in ("accuracy", "val_accuracy")
    }
    assert "[half]" in shown


def test_a_review_tells_what_an_experiment_changed(changed: Path) -> None:
    said = succeed(changed, "cifarpipe", "review", "main")
    assert (changed / "review/review.md").read_text() == said.removesuffix("\n")
    assert "## Compared with `main`" in said
    assert "| lr | 0.01 | 0.005 |" in said
    before = json.loads(succeed(changed, "git", "show", "main:reports/models/vit/metrics.json"))
    after = json.loads((changed / "reports/models/vit/metrics.json").read_text())
    was, now = before["vit"]["accuracy"], after["vit"]["accuracy"]
    assert f"| vit | {was:.2%} | {now:.2%} | {100 * (now - was):+.2f} |" in said
    old = read_table(Path(cached(changed, "main", "artifacts/vit/predictions.csv")))
    new = read_table(changed / "artifacts/vit/predictions.csv")
    fixed = int(((old.true != old.predicted) & (new.true == new.predicted)).sum())
    broken = int(((old.true == old.predicted) & (new.true != new.predicted)).sum())
    assert f"{fixed} test images fixed, {broken} broken" in said
    pictures = sorted(path.name for path in (changed / "review").glob("vit_*.png"))
    assert pictures == [
        f"vit_{what}.png" for what, n in (("broken", broken), ("fixed", fixed)) if n
    ]


def cached(study: Path, revision: str, path: str) -> Path:
    """Return a file of a revision in DVC's cache."""
    import yaml

    lock = yaml.safe_load(succeed(study, "git", "show", f"{revision}:dvc.lock"))
    (digest,) = [
        out["md5"]
        for stage in lock["stages"].values()
        for out in stage["outs"]
        if out["path"] == path
    ]
    return study / ".dvc/cache/files/md5" / digest[:2] / digest[2:]


def test_a_review_may_be_of_an_experiment(clean: Path) -> None:
    said = succeed(clean, "cifarpipe", "review", "half")
    assert "| lr | 0.005 | 0.01 |" in said


def test_without_the_bases_predictions_a_review_compares_metrics(
    changed: Path, tmp_path: Path
) -> None:
    shutil.copytree(changed, tmp_path / "copy", symlinks=True)
    lost = cached(tmp_path / "copy", "main", "artifacts/vit/predictions.csv")
    lost.unlink()
    said = succeed(tmp_path / "copy", "cifarpipe", "review", "main")
    assert "Predictions of vit are not all at hand" in said
    assert "test images fixed" in said  # of the other model


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("nowhere", "'nowhere' is no revision of this repository; allowed: a branch, a tag"),
        ("empty", "empty has no params.yaml with `models`"),
        ("bare", "bare has no metrics (reports/models/*/metrics.json)"),
    ],
)
def test_a_base_that_can_not_be_compared_is_one_clear_line(
    study: Path, tmp_path: Path, base: str, said: str
) -> None:
    copy = tmp_path / "copy"
    succeed(tmp_path, "git", "clone", "-q", str(study), str(copy))
    shutil.copytree(study / ".dvc/cache", copy / ".dvc/cache")
    for branch, gone in (("empty", ["params.yaml"]), ("bare", ["reports"])):
        succeed(copy, "git", "checkout", "-q", "-b", branch, "main")
        succeed(copy, "git", "rm", "-rq", *gone)
        succeed(copy, "git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", branch)
    succeed(copy, "git", "checkout", "-q", "main")
    done = run(copy, "cifarpipe", "review", base)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (copy / "review").exists()


def test_a_sweep_puts_the_experiments_beside_each_other(clean: Path) -> None:
    said = succeed(clean, "cifarpipe", "sweep", "--model", "vit")
    main, half, other = (
        json.loads(succeed(clean, "git", "show", f"{rev}:reports/models/vit/metrics.json"))["vit"]
        for rev in ("main", commit_of(clean, "half"), commit_of(clean, "seed-1"))
    )
    assert f"| 0.005 | 1 | {half['val_accuracy']:.2%} | {half['accuracy']:.2%} |" in said
    cells = []
    for name in ("val_accuracy", "accuracy"):
        mean, deviation = (main[name] + other[name]) / 2, abs(main[name] - other[name]) / 2**0.5
        cells.append(f"{mean:.2%} ± {100 * deviation:.2f}")
    assert f"| 0.01 | 2 | {' | '.join(cells)} |" in said
    assert (clean / "sweep/vit.png").stat().st_size > 5_000
    assert (clean / "sweep/sweep.md").is_file()


def commit_of(study: Path, experiment: str) -> str:
    refs = succeed(study, "git", "for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    (found,) = [line.split()[0] for line in refs.splitlines() if line.endswith(f"/{experiment}")]
    return found


def test_predictions_of_another_checkout_are_not_taken_for_these(
    study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study, tmp_path / "copy", symlinks=True)
    stale = read_table(tmp_path / "copy/artifacts/vit/predictions.csv")
    stale.loc[:3, "predicted"] = "elsewhere"
    path = tmp_path / "copy/artifacts/vit/predictions.csv"
    path.unlink()  # it is a link to the cache
    write_csv(path, stale)
    done = run(tmp_path / "copy", "cifarpipe", "review", "half")
    assert done.returncode == 0
    assert "predictions of vit are not those of its metrics: run `dvc checkout`" in done.stderr
    assert "Predictions of vit are not all at hand" in done.stdout


def test_images_of_another_checkout_are_not_shown(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy", symlinks=True)
    succeed(tmp_path / "copy", "cifarpipe", "review", "half")
    assert list((tmp_path / "copy/review").glob("*.png"))
    params = (tmp_path / "copy/params.yaml").read_text()
    (tmp_path / "copy/params.yaml").write_text(params.replace("seed: 0", "seed: 5", 1))
    succeed(tmp_path / "copy", sys.executable, "-m", "stages.prepare")
    succeed(tmp_path / "copy", "git", "checkout", "-q", ".")
    done = run(tmp_path / "copy", "cifarpipe", "review", "half")
    assert done.returncode == 0
    assert "data/prepared holds other images than workspace was evaluated on" in done.stderr
    assert not list((tmp_path / "copy/review").glob("*.png"))


def test_an_unknown_model_of_a_sweep_is_refused(clean: Path) -> None:
    done = run(clean, "cifarpipe", "sweep", "--model", "nobody")
    assert done.returncode == 2
    assert (
        "--model is 'nobody'; allowed, since there are results of them: vit, convmixer"
        in done.stderr
    )


def test_a_lock_that_is_not_current_is_named(study: Path) -> None:
    params = (study / "params.yaml").read_text()
    (study / "params.yaml").write_text(params.replace("lr: 0.01", "lr: 0.02", 1))
    done = run(study, "make", "-s", "-o", ".venv/.ready", "current")
    (study / "params.yaml").write_text(params)
    assert done.returncode == 2
    assert "dvc.lock is not current" in done.stderr
    assert "train@vit" in done.stderr


def test_a_lock_is_current_in_a_clone_without_data(study: Path, tmp_path: Path) -> None:
    succeed(tmp_path, "git", "clone", "-q", str(study), "copy")
    link_environment(tmp_path / "copy")
    said = succeed(tmp_path / "copy", "make", "-s", "-o", ".venv/.ready", "current")
    assert said == "dvc.lock is current.\n"


def test_a_lock_of_other_data_is_named_in_a_clone_without_data(study: Path, tmp_path: Path) -> None:
    """DVC gives up at the first stage whose input is not there."""
    copy = tmp_path / "copy"
    succeed(tmp_path, "git", "clone", "-q", str(study), "copy")
    link_environment(copy)
    params = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(params.replace("seed: 0", "seed: 1", 1))
    done = run(copy, "make", "-s", "-o", ".venv/.ready", "current")
    assert done.returncode == 2
    assert "dvc.lock is not current" in done.stderr
    assert "It would run prepare …\n" in done.stderr
    assert "ERROR" not in done.stderr


def test_plots_open_without_network(changed: Path, tmp_path: Path) -> None:
    """Curves of both sides and all models, confusions and pictures, in one page."""
    succeed(changed, "dvc", "plots", "diff", "main", "-o", str(tmp_path))
    with started_browser() as browser:
        opened = visit(browser, tmp_path / "index.html")
        opened.page.wait_for_selector("canvas, svg")
        opened.page.wait_for_timeout(500)
        drawn = opened.page.locator("canvas, svg").count()
        pictures = opened.page.locator("img")
        widths = [picture.evaluate("it => it.naturalWidth") for picture in pictures.all()]
        opened.faults = [said for said in opened.faults if not said.startswith(VEGA_WARNS)]
        opened.requests = [url for url in opened.requests if "/static/" not in url]
        opened.assert_quiet()
        text = opened.page.inner_text("body")
    assert drawn >= 2 + len(MODELS)  # accuracy, loss, and a confusion matrix of each model
    assert len(widths) >= len(MODELS)
    assert min(widths) > 0
    assert "confusion" in text


def test_a_run_can_be_watched_interrupted_and_continued(study: Path, tmp_path: Path) -> None:
    """`dvc exp show` has the last finished epoch of what still trains, and Ctrl-C loses nothing."""
    copy = Path(shutil.copytree(study, tmp_path / "copy", symlinks=True))
    params = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(params.replace("epochs: 2", "epochs: 60", 1))
    running = subprocess.Popen(
        ["dvc", "repro", "train@vit"],
        cwd=copy,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while epoch_written(copy) <= 2:  # that of the commit; then those that are done
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGSTOP)  # or it might be over before DVC has looked
    epoch = epoch_written(copy)
    assert 2 < epoch == epoch_shown(copy) < 60
    os.killpg(running.pid, signal.SIGCONT)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    said, _ = running.communicate(timeout=60)
    assert running.returncode not in (0, None), said
    assert "Traceback" not in said
    assert not list(copy.glob("artifacts/vit/*.tmp*"))
    assert succeed(copy, "git", "status", "--porcelain", "dvc.lock") == ""

    again = succeed(copy, "dvc", "repro", "train@vit")
    assert "vit: going on after epoch" in again
    history = pd.read_csv(copy / "reports/models/vit/history.csv")
    assert history.epoch.tolist() == list(range(1, 61))
    training = json.loads((copy / "reports/models/vit/training.json").read_text())
    told = training["vit"]["training"]
    assert told.pop("epoch") == 60
    assert told == {name: pytest.approx(history[name].iloc[-1], abs=1e-4) for name in told}
    assert set(told) == {"train_loss", "train_acc", "val_loss", "val_acc"}


def epoch_written(folder: Path) -> int:
    """Return the epoch that the metrics file holds; 0 while there is none."""
    file = folder / "reports/models/vit/training.json"
    return json.loads(file.read_text())["vit"]["training"]["epoch"] if file.exists() else 0


def epoch_shown(folder: Path) -> int:
    """Return the epoch that the working tree's row shows; 0 while there is none."""
    rows = json.loads(succeed(folder, "dvc", "exp", "show", "--json"))
    (row,) = [row for row in rows if row["rev"] == "workspace"]
    file = row["data"]["metrics"].get("reports/models/vit/training.json", {})
    return file.get("data", {}).get("vit", {}).get("training", {}).get("epoch", 0)
