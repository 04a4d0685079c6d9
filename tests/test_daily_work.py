"""Daily work with a study: experiments, comparisons, reviews, plots, interrupted runs."""

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
from tests.support.study import (
    MODELS,
    clone_of,
    copy_of,
    environment,
    replace_in,
    restore,
    run,
    shared_experiment,
    succeed,
)

pytestmark = pytest.mark.dvc
# About versions, and about DVC's smoothed curves, for which two epochs are too few.
VEGA_WARNS = ("WARN ", "The compiled spec uses Vega v5")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with two experiments: another learning rate, and another seed.

    The second one is saved, not run: its accuracies are made up.
    """
    shared = shared_experiment(tmp_path_factory)
    folder = copy_of(shared, tmp_path_factory.mktemp("daily") / "study")
    succeed(folder, "cifarpipe", "plots-page")
    replace_in(folder / "params.yaml", "seed: 0", "seed: 1")
    for file in ("metrics", "training"):
        path = folder / f"reports/models/vit/{file}.json"
        values = json.loads(path.read_text())
        values["vit"]["val_accuracy" if file == "training" else "accuracy"] = 0.4321
        path.write_text(json.dumps(values))
    succeed(folder, "dvc", "exp", "save", "--name", "seed-1")
    restore(folder)
    return folder


@pytest.fixture
def clean(study: Path) -> Path:
    """The study, which must be as committed before and after the test."""
    assert succeed(study, "git", "status", "--porcelain") == ""
    yield study
    assert succeed(study, "git", "status", "--porcelain") == ""


@pytest.fixture
def changed(study: Path) -> Path:
    """The study with the experiment `half` applied."""
    succeed(study, "dvc", "exp", "apply", "half")
    yield study
    restore(study)


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
def test_reading_command_changes_nothing(clean: Path, command: str) -> None:
    succeed(clean, *command.split())
    assert succeed(clean, "git", "status", "--porcelain") == ""


def test_experiments_have_few_columns(clean: Path) -> None:
    shown = succeed(clean, "make", "-s", "-o", ".venv/.ready", "experiments")
    names = [name.strip() for name in shown.splitlines()[0].strip("| ").split("|")]
    assert set(names) == {"Experiment", "seed", "lr"} | {
        f"{model}.{figure}" for model in MODELS for figure in ("accuracy", "val_accuracy")
    }
    assert "[half]" in shown


def test_review_compares_an_experiment_with_main(changed: Path) -> None:
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


def test_review_accepts_an_experiment_as_base(clean: Path) -> None:
    said = succeed(clean, "cifarpipe", "review", "half")
    assert "| lr | 0.005 | 0.01 |" in said


def test_review_without_predictions_compares_metrics(changed: Path, tmp_path: Path) -> None:
    copy = copy_of(changed, tmp_path / "copy")
    cached(copy, "main", "artifacts/vit/predictions.csv").unlink()
    said = succeed(copy, "cifarpipe", "review", "main")
    assert "The predictions of vit are not all available" in said
    assert "test images fixed" in said  # of the other model


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("nowhere", "'nowhere' is not a revision of this repository; allowed: a branch, a tag"),
        ("empty", "empty has no params.yaml with `models`"),
        ("bare", "bare has no metrics (reports/models/*/metrics.csv)"),
    ],
)
def test_base_without_results_is_refused(study: Path, tmp_path: Path, base: str, said: str) -> None:
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


def test_sweep_compares_the_experiments(clean: Path) -> None:
    said = succeed(clean, "cifarpipe", "sweep", "--model", "vit")
    revisions = ("main", commit_of(clean, "half"), commit_of(clean, "seed-1"))
    main, half, other = (metrics_of(clean, revision) for revision in revisions)
    assert f"| 0.005 | 1 | {half['val_accuracy']:.2%} | {half['accuracy']:.2%} |" in said
    cells = []
    for name in ("val_accuracy", "accuracy"):
        mean, deviation = (main[name] + other[name]) / 2, abs(main[name] - other[name]) / 2**0.5
        cells.append(f"{mean:.2%} ± {100 * deviation:.2f}")
    assert f"| 0.01 | 2 | {' | '.join(cells)} |" in said
    assert (clean / "sweep/vit.png").stat().st_size > 5_000
    assert (clean / "sweep/sweep.md").is_file()


def metrics_of(study: Path, revision: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for file in ("training", "metrics"):
        text = succeed(study, "git", "show", f"{revision}:reports/models/vit/{file}.json")
        found |= json.loads(text)["vit"]
    return found


def commit_of(study: Path, experiment: str) -> str:
    refs = succeed(study, "git", "for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    (found,) = [line.split()[0] for line in refs.splitlines() if line.endswith(f"/{experiment}")]
    return found


def test_review_ignores_predictions_of_another_checkout(study: Path, tmp_path: Path) -> None:
    copy = copy_of(study, tmp_path / "copy")
    path = copy / "artifacts/vit/predictions.csv"
    stale = read_table(path)
    stale.loc[:3, "predicted"] = "elsewhere"
    path.unlink()  # a link to the cache
    write_csv(path, stale)
    done = run(copy, "cifarpipe", "review", "half")
    assert done.returncode == 0
    assert "predictions and metrics of vit differ: run `dvc checkout`" in done.stderr
    assert "The predictions of vit are not all available" in done.stdout


def test_review_draws_no_images_of_another_checkout(study: Path, tmp_path: Path) -> None:
    copy = copy_of(study, tmp_path / "copy")
    succeed(copy, "cifarpipe", "review", "half")
    assert list((copy / "review").glob("*.png"))
    replace_in(copy / "params.yaml", "seed: 0", "seed: 5")
    succeed(copy, sys.executable, "-m", "stages.prepare")
    succeed(copy, "git", "checkout", "-q", ".")
    done = run(copy, "cifarpipe", "review", "half")
    assert done.returncode == 0
    assert "data/prepared has other images than workspace was evaluated on" in done.stderr
    assert not list((copy / "review").glob("*.png"))


def test_sweep_of_unknown_model_is_refused(clean: Path) -> None:
    done = run(clean, "cifarpipe", "sweep", "--model", "nobody")
    assert done.returncode == 2
    assert "--model 'nobody' has no results. Models with results: vit, convmixer" in done.stderr


def test_stale_lock_is_reported_with_its_stages(study: Path) -> None:
    replace_in(study / "params.yaml", "lr: 0.01", "lr: 0.02")
    done = run(study, "cifarpipe", "current")
    replace_in(study / "params.yaml", "lr: 0.02", "lr: 0.01")
    assert done.returncode == 2
    assert "dvc.lock is not up to date: `dvc repro` would run train@vit" in done.stderr


def test_clone_without_data_has_current_lock(study: Path, tmp_path: Path) -> None:
    clone = clone_of(study, tmp_path / "clone")
    said = succeed(clone, "make", "-s", "-o", ".venv/.ready", "current")
    assert said == "dvc.lock is up to date.\n"


def test_stale_lock_is_reported_without_data(study: Path, tmp_path: Path) -> None:
    """DVC gives up at the first stage whose input is missing."""
    clone = clone_of(study, tmp_path / "clone")
    replace_in(clone / "params.yaml", "seed: 0", "seed: 1")
    done = run(clone, "make", "-s", "-o", ".venv/.ready", "current")
    assert done.returncode == 2
    assert "dvc.lock is not up to date: `dvc repro` would run prepare" in done.stderr
    assert "\nChanged since prepare ran: `seed` in params.yaml.\n" in done.stderr
    assert "ERROR" not in done.stderr


def test_plots_page_says_how_to_get_its_scripts(study: Path, tmp_path: Path) -> None:
    clone = clone_of(study, tmp_path / "clone")
    succeed(clone, "dvc", "plots", "show", "-o", str(tmp_path / "plots"))
    assert "cifarpipe plots-page" in (tmp_path / "plots/index.html").read_text()
    succeed(clone, "cifarpipe", "plots-page")
    succeed(clone, "dvc", "plots", "show", "-o", str(tmp_path / "plots"))
    assert "cifarpipe plots-page" not in (tmp_path / "plots/index.html").read_text()
    assert succeed(clone, "git", "status", "--porcelain") == ""


def test_plots_open_without_network(changed: Path, tmp_path: Path) -> None:
    """Curves of both revisions and all models, confusion matrices and pictures, in one page."""
    succeed(changed, "dvc", "plots", "diff", "main", "-o", str(tmp_path))
    with started_browser() as browser:
        opened = visit(browser, tmp_path / "index.html")
        opened.page.wait_for_selector("canvas, svg")
        opened.page.wait_for_timeout(500)
        drawn = opened.page.locator("canvas, svg").count()
        pictures = opened.page.locator("img")
        widths = [picture.evaluate("it => it.naturalWidth") for picture in pictures.all()]
        opened.errors = [said for said in opened.errors if not said.startswith(VEGA_WARNS)]
        opened.requests = [url for url in opened.requests if "/static/" not in url]
        opened.assert_quiet()
        text = opened.page.inner_text("body")
    assert drawn >= 1 + len(MODELS)  # all curves, and a confusion matrix of each model
    assert len(widths) >= len(MODELS)
    assert min(widths) > 0
    assert "confusion" in text


def test_run_can_be_watched_interrupted_and_resumed(study: Path, tmp_path: Path) -> None:
    """`dvc exp show` has the last finished epoch, and Ctrl-C loses no finished epoch."""
    copy = copy_of(study, tmp_path / "copy")
    replace_in(copy / "params.yaml", "epochs: 2", "epochs: 30")
    running = subprocess.Popen(
        ["dvc", "repro", "train@vit"],
        cwd=copy,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while epoch_written(copy) <= 2:  # first that of the commit
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGSTOP)  # or it may finish before DVC reads the file
    epoch = epoch_written(copy)
    assert 2 < epoch == epoch_shown(copy) < 30
    os.killpg(running.pid, signal.SIGCONT)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    said, _ = running.communicate(timeout=60)
    assert running.returncode not in (0, None), said
    assert "Traceback" not in said
    assert "vit: interrupted; in this folder, `dvc repro` resumes after epoch" in said
    assert not list(copy.glob("artifacts/vit/*.tmp*"))
    assert succeed(copy, "git", "status", "--porcelain", "dvc.lock") == ""

    again = succeed(copy, "dvc", "repro", "train@vit")
    assert "vit: resuming after epoch" in again
    history = pd.read_csv(copy / "reports/models/vit/history.csv")
    assert history.epoch.tolist() == list(range(1, 31))
    training = json.loads((copy / "reports/models/vit/training.json").read_text())["vit"]
    kept = history[history.kept == 1]
    assert training == {"epoch": 30, "val_accuracy": pytest.approx(kept.val_acc.item(), abs=1e-4)}


def epoch_written(folder: Path) -> int:
    """Return the epoch in the metrics file; 0 if there is no file."""
    file = folder / "reports/models/vit/training.json"
    return json.loads(file.read_text())["vit"]["epoch"] if file.exists() else 0


def epoch_shown(folder: Path) -> int:
    """Return the epoch that `dvc exp show` shows for the workspace; 0 if there is none."""
    rows = json.loads(succeed(folder, "dvc", "exp", "show", "--json"))
    (row,) = [row for row in rows if row["rev"] == "workspace"]
    file = row["data"]["metrics"].get("reports/models/vit/training.json", {})
    return file.get("data", {}).get("vit", {}).get("epoch", 0)
