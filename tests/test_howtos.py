"""Follow every how-to of docs/ and check the result of each command."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from hashlib import md5
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from subprocess import CompletedProcess
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.howto import Check, follow
from tests.support.study import (
    MODELS,
    OWN_PROCESSES,
    PER_MODEL,
    ROOT,
    copy_of,
    experiments,
    queue,
    run,
    shared_experiment,
    shared_study,
    stages_that_ran,
    succeed,
    wait_for_queue,
)

Done = CompletedProcess[str]
# Otherwise make would renew the environment, since the clone's lock file is newer.
MAKE = {"make ": "make -s -o .venv/.ready "}
BUCKET = "## A bucket"  # the section of sharing.md on S3
S3 = "dvc-s3==3.3.0"
SERVER = "moto[server]==5.2.5"


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return copy_of(shared_study(tmp_path_factory), tmp_path / "clone")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A clone with an experiment and a remote repository."""
    clone = copy_of(shared_experiment(tmp_path_factory), tmp_path / "clone")
    succeed(tmp_path, "git", "init", "-q", "--bare", "-b", "main", "cifar.git")
    succeed(clone, "git", "remote", "add", "origin", str(tmp_path / "cifar.git"))
    return clone


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with a bucket, and DVC's package for S3 in the environment."""
    more = tmp_path / "packages"
    succeed(ROOT, ".venv/bin/uv", "pip", "install", "-q", "--target", str(more), S3, SERVER,
            f"dvc=={version('dvc')}")  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(more))
    monkeypatch.setenv(OWN_PROCESSES, "1")  # forks of one that runs already do not see the packages
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen(
        ["python", "-c", f"from moto.server import main; main(['-p', '{port}'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urlopen(Request(f"{url}/bucket", method="PUT")).close()
            break
        except URLError:
            time.sleep(0.2)
    yield url
    started.kill()
    started.wait()


@pytest.mark.slow
def test_experiments_page(clone: Path) -> None:
    follow(page("experiments"), clone, EXPERIMENTS, MAKE)


@pytest.mark.dvc
def test_review_page(shared: Path) -> None:
    succeed(shared, "dvc", "exp", "apply", "half")
    succeed(shared, "git", "checkout", "-qb", "faster")
    succeed(shared, "git", "commit", "-qam", "Half the learning rate")
    follow(page("review"), shared, REVIEW, MAKE)


@pytest.mark.dvc
def test_sharing_page(shared: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((50, 60, 3), 120, np.uint8)).save(tmp_path / "photo.png")
    follow(page("sharing").partition(BUCKET)[0], shared, SHARING, stand_ins(tmp_path))


@pytest.mark.slow
def test_bucket_section(shared: Path, tmp_path: Path, server: str) -> None:
    there = stand_ins(tmp_path) | {
        ".venv/bin/uv pip install dvc-s3": "true",
        "http://127.0.0.1:5599": server,
    }
    follow(page("sharing").partition(BUCKET)[2], shared, SHARING, there)


def page(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def stand_ins(folder: Path) -> dict[str, str]:
    """Return what replaces example addresses and the set-up."""
    return {
        "https://git.example.org/cifar.git": shlex.quote(f"{folder}/cifar.git"),
        "/shared/cifar": shlex.quote(f"{folder}/storage"),
        "photo.png": shlex.quote(f"{folder}/photo.png"),
        "make setup && source .venv/bin/activate": "git config user.name nobody; "
        "git config user.email nobody@example.invalid",
    }


def stages_of(*models: str) -> set[str]:
    return {f"{stage}@{model}" for stage in PER_MODEL for model in models} | {"report"}


def value(folder: Path, revision: str, name: str) -> object:
    """Return a parameter, by its dotted name, of a revision or of the workspace."""
    text = (
        succeed(folder, "git", "show", f"{revision}:params.yaml")
        if revision
        else (folder / "params.yaml").read_text()
    )
    found = yaml.safe_load(text)
    for part in name.split("."):
        found = found[part]
    return found


def metrics(folder: Path, revision: str, model: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for file in ("training", "metrics"):
        text = succeed(folder, "git", "show", f"{revision}:reports/models/{model}/{file}.json")
        found |= json.loads(text)[model]
    return found


def clean(folder: Path) -> bool:
    return succeed(folder, "git", "status", "--porcelain") == ""


def all_models_at_half_the_rate(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert stages_that_ran(done.stdout) == stages_of(*MODELS)
    assert value(folder, "", "lr") == 0.005
    (name,) = experiments(folder).values()
    here = json.loads((folder / "reports/models/vit/metrics.json").read_text())["vit"]
    assert metrics(folder, name, "vit") == metrics(folder, name, "vit") | here


def nothing_is_computed_twice(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert not stages_that_ran(done.stdout)
    assert experiments(folder).keys() >= {"half"}


def up_to_date(folder: Path) -> bool:
    status = succeed(folder, "dvc", "status").split()
    return status == ["data/dvc.yaml:check:", "always", "changed"]


def as_committed(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert clean(folder)
    assert up_to_date(folder)


def one_model_alone(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert stages_that_ran(done.stdout) == stages_of("vit")
    assert value(folder, "", "models.vit.depth") == 3


def the_tree_is_as_it_was(folder: Path, done: Done) -> None:
    as_committed(folder, done)
    assert value(folder, experiments(folder)["double"], "lr") == 0.02


def refused_with_how_to_undo(folder: Path, done: Done) -> None:
    assert done.returncode != 0
    assert "lr is -1" in done.stderr
    assert "`git checkout params.yaml`" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def back_without_computing(folder: Path, done: Done) -> None:
    assert not stages_that_ran(done.stdout)
    as_committed(folder, done)


def few_columns(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    columns = set(done.stdout.splitlines()[0].replace("|", " ").split())
    figures = {f"{name}.{kind}" for name in MODELS for kind in ("accuracy", "val_accuracy")}
    assert columns == figures | {"Experiment", "lr", "models.vit.depth"}
    assert all(f"[{name}]" in done.stdout for name in ("half", "deep", "double"))
    assert clean(folder)


def both_sides(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("params.yaml")]
    assert row.split() == ["params.yaml", "lr", "0.005", "0.02", "0.015"]
    assert clean(folder)


def reviewed(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "| lr | 0.005 | 0.01 |" in done.stdout
    assert clean(folder)


def applied(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert value(folder, "", "lr") == 0.005
    assert up_to_date(folder)


def branched(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert value(folder, "faster", "lr") == 0.005


def removed(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "half" not in experiments(folder)


def queued(names: list[str]) -> Check:
    def check(folder: Path, done: Done) -> None:
        assert done.returncode == 0, done.stderr
        states = queue(folder)
        # A worker of an earlier queue may still be there, and take them at once.
        assert {states.get(name) for name in names} <= {"Queued", "Running"}
        assert clean(folder)

    return check


def all_succeed(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    states = wait_for_queue(folder)
    assert set(states.values()) == {"Success"}
    assert states.keys() <= experiments(folder).keys()
    assert clean(folder)


def swept(*varied: str) -> Check:
    """Check that there is a row per setting with the metrics of its experiments, and the best."""

    def check(folder: Path, done: Done) -> None:
        assert done.returncode == 0, done.stderr
        part = done.stdout.partition("## vit\n")[2].partition("\n## ")[0]
        table = [line.strip("| ").split(" | ") for line in part.splitlines() if "|" in line]
        assert table[0] == [*(f"`{name}`" for name in varied), "seeds", "validation", "test"]
        found = {tuple(row[: len(varied)]): row[len(varied) :] for row in table[2:]}
        assert found == settings(folder, varied)
        best = max(found, key=lambda row: float(found[row][1].split("%")[0]))
        assert ", ".join(map(" = ".join, zip(varied, best, strict=True))) in part.splitlines()[1]
        assert (folder / "sweep/vit.png").stat().st_size > 5000
        assert clean(folder)

    return check


def settings(folder: Path, varied: tuple[str, ...]) -> dict[tuple[str, ...], list[str]]:
    """Return the rows that a sweep's table should have, from git alone."""
    seeds: dict[tuple[str, ...], dict[object, tuple[float, float]]] = {}
    for revision in ("main", *experiments(folder).values()):
        setting = tuple(str(value(folder, revision, name)) for name in varied)
        found = metrics(folder, revision, "vit")
        seeds.setdefault(setting, {})[value(folder, revision, "seed")] = (
            found["val_accuracy"],
            found["accuracy"],
        )
    rows = {}
    for setting, runs in seeds.items():
        cells = [
            f"{mean(kind):.2%}" + (f" ± {100 * stdev(kind):.2f}" if len(kind) > 1 else "")
            for kind in zip(*runs.values(), strict=True)
        ]
        rows[setting] = [str(len(runs)), *cells]
    return rows


def what_is_there(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert all(f"[{name}]" in done.stdout for name in experiments(folder))
    columns = set(done.stdout.splitlines()[0].replace("|", " ").split())
    assert columns >= {f"{name}.{kind}" for name in MODELS for kind in ("epoch", "val_accuracy")}
    assert clean(folder)


def reads_only(*said: str) -> Check:
    def check(folder: Path, done: Done) -> None:
        assert done.returncode == 0, done.stderr
        assert all(part in done.stdout for part in said)
        assert clean(folder)

    return check


def in_sync(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "are in sync" in succeed(folder, "dvc", "status", "-c")


def pushed(ref: str) -> Check:
    def check(folder: Path, done: Done) -> None:
        assert done.returncode == 0, done.stderr
        there = succeed(folder, "git", "ls-remote", "origin")
        assert any(line.endswith(ref) for line in there.splitlines())

    return check


def without_data(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert folder.name == "cifar"
    assert (folder / "reports/index.html").is_file()
    assert not (folder / "artifacts").exists()
    assert not (folder / "data/prepared").exists()


def all_there(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert all((folder / f"artifacts/{name}/model.safetensors").is_file() for name in MODELS)


def nothing_to_do(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert not stages_that_ran(done.stdout)
    assert clean(folder)


def explained(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "Maps of vit by" in done.stdout
    (folder / "photo_vit.png").unlink()


def tagged(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "vit@v1.0.0" in succeed(folder, "git", "tag")


def downloaded(name: str) -> Check:
    def check(folder: Path, done: Done) -> None:
        assert done.returncode == 0, done.stderr
        digest = md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        assert digest in succeed(folder, "git", "show", "vit@v1.0.0:dvc.lock")

    return check


def goes_on_without_training(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    found = stages_that_ran(done.stdout)
    assert found >= {f"evaluate@{name}" for name in MODELS}
    assert not {stage for stage in found if stage.startswith(("prepare", "train"))}


def pulled(folder: Path, done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert "half" in experiments(folder)


def another_clone_gets_all(folder: Path, done: Done) -> None:
    """Without the cache of the first clone."""
    assert done.returncode == 0, done.stderr
    other = folder.parent / "other"
    succeed(folder.parent, "git", "clone", "-q", str(folder), str(other))
    shutil.copy(folder / ".dvc/config.local", other / ".dvc/config.local")
    all_there(other, run(other, "dvc", "pull", "-r", "bucket"))
    nothing_to_do(other, run(other, "dvc", "repro"))


RATES, GRID, SEEDS = ([f"{name}-{i + 1}" for i in range(n)] for name, n in
                      (("rate", 5), ("grid", 4), ("seed", 6)))  # fmt: skip
EXPERIMENTS: dict[str, Check] = {
    "dvc exp run -S lr=0.005": all_models_at_half_the_rate,
    "dvc exp run --name half -S lr=0.005": nothing_is_computed_twice,
    "git checkout . && dvc checkout": as_committed,
    "dvc exp run --name deep -S models.vit.depth=3": one_model_alone,
    "dvc exp run --temp --name double -S lr=0.02": the_tree_is_as_it_was,
    "dvc exp run -S lr=-1": refused_with_how_to_undo,
    "git checkout params.yaml && dvc repro": back_without_computing,
    "make experiments": few_columns,
    "dvc exp diff half double": both_sides,
    "cifarpipe review half": reviewed,
    "dvc exp apply half": applied,
    "dvc exp branch half faster": branched,
    "dvc exp remove half": removed,
    "dvc exp run --queue --name rate -S 'lr=choice(0.001,0.003,0.01,0.03,0.1)'": queued(RATES),
    "dvc queue start": all_succeed,
    "dvc queue status": reads_only("rate-5"),
    "cifarpipe sweep --model vit --model convmixer": swept("lr", "models.vit.depth"),
    "dvc exp run --queue --name grid -S 'lr=choice(0.003,0.03)' "
    "-S 'models.vit.depth=range(1,3)'": queued(GRID),
    "dvc queue start -j 2": all_succeed,
    "cifarpipe sweep --model vit": swept("lr", "models.vit.depth"),
    "dvc exp run --queue --name seed -S 'seed=range(1,4)' -S 'lr=choice(0.01,0.03)'": queued(SEEDS),
    "make progress": what_is_there,
}

REVIEW: dict[str, Check] = {
    "dvc params diff main": reads_only("lr", "0.01", "0.005"),
    "dvc metrics diff --no-path main": reads_only("vit.accuracy", "convmixer.loss"),
    "dvc plots diff main": reads_only("dvc_plots/index.html"),
    "make current": reads_only("dvc.lock is up to date."),
    "cifarpipe review main": reads_only("| lr | 0.01 | 0.005 |", "test images fixed"),
}
SHARING: dict[str, Check] = {
    "dvc remote add -d --local storage /shared/cifar": reads_only(),
    "dvc push": in_sync,
    "dvc push --all-commits": in_sync,
    "git push -q origin main": pushed("refs/heads/main"),
    "dvc exp push origin half": pushed("/half"),
    "git clone https://git.example.org/cifar.git && cd cifar": without_data,
    "make setup && source .venv/bin/activate": reads_only(),
    "dvc pull": all_there,
    "dvc repro": nothing_to_do,
    "cifarpipe explain photo.png --model vit": explained,
    "dvc exp run -S evaluate.calibration_bins=10": goes_on_without_training,
    "dvc exp pull origin half": pulled,
    "dvc exp apply half": applied,
    "git tag -a vit@v1.0.0 -m 'The first release of vit'": tagged,
    "git push -q origin main vit@v1.0.0": pushed("refs/tags/vit@v1.0.0"),
    "dvc artifacts get https://git.example.org/cifar.git vit --remote any "
    "--remote-config url=/shared/cifar -o vit.safetensors": downloaded("vit.safetensors"),
    "dvc artifacts get . vit --rev v1.0.0 -o vit-1.0.0.safetensors": downloaded(
        "vit-1.0.0.safetensors"
    ),
    ".venv/bin/uv pip install dvc-s3": reads_only(),
    "dvc remote add -d --local bucket s3://bucket/cifar": reads_only(),
    "dvc remote modify --local bucket endpointurl http://127.0.0.1:5599": reads_only(),
    "dvc pull -r bucket": another_clone_gets_all,
}
