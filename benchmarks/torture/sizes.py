"""Very many and very few classes, images and models: does it work, and how long does it take?"""

import copy
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks.study import copy_study, environment, run
from benchmarks.torture.faults import stages_run
from benchmarks.torture.harness import CHANGES, MODELS, PER_MODEL, Row, command

TINY = {"vit": MODELS["vit"] | {"epochs": 1}, "convmixer": MODELS["convmixer"] | {"epochs": 1}}


def dvc(folder: Path, *arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run DVC; return the seconds and the finished process."""
    begun = time.monotonic()
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=environment(OMP_NUM_THREADS="1"),
                          capture_output=True, text=True, check=False)  # fmt: skip
    return time.monotonic() - begun, done


def python(folder: Path, code: str) -> str:
    """Run Python code, and return its output."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True,
                          text=True)  # fmt: skip
    return done.stdout


def result(what: str, done: subprocess.CompletedProcess[str], good: str) -> Row:
    """Return the row of a run that should have succeeded; `good` is its outcome if it did."""
    if done.returncode:
        return Row(what, 1, f"WRONG: {(done.stderr or done.stdout)[-300:]}", 1)
    return Row(what, 1, good)


def many_models(folder: Path, count: int) -> Row:
    """Measure how long `dvc repro` takes without changes if there are many models."""
    copy_study(folder, CHANGES, TINY)
    path = folder / "params.yaml"
    yaml = YAML()
    params = yaml.load(path)
    params["models"] = {
        f"{name}_{number}": copy.deepcopy(entry)
        for number in range(count // 2)
        for name, entry in params["models"].items()
    }
    yaml.dump(params, path)
    path = folder / "dvc.yaml"
    dag = yaml.load(path)
    for stage in dag["stages"].values():
        body = stage.get("do", stage)
        for model in params["models"] if "do" in stage else [""]:
            for out in (out for kind in ("outs", "metrics", "plots") for out in body.get(kind, [])):
                name = next(iter(out)) if isinstance(out, dict) else out
                file = folder / name.replace("${key}", model)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
    run(folder, *command("check"))  # its output is a dependency
    dvc(folder, "commit", "--force", "--quiet")  # as if all stages had run: only DVC is measured
    seconds, done = dvc(folder, "repro")
    stages = len(PER_MODEL) * count + 3
    good = f"{stages} stages; `dvc repro` without changes takes {seconds:.1f} s"
    row = result(f"{count} models in params.yaml", done, good)
    reran = stages_run(done.stdout)
    return row if not reran else Row(row.what, 1, f"WRONG: {reran} stages ran again", 1)


def small_study(folder: Path, what: str, changes: dict[str, dict[str, Any]], recipe: dict[str, Any],
                *, images: Path | None = None) -> Row:  # fmt: skip
    """Run a study with some changes."""
    data = dict(changes.get("data", {}))
    if images:
        data |= {"source": "folder", "folder": str(images)}
    sections = CHANGES | changes | {"data": CHANGES["data"] | data}
    copy_study(folder, sections, {name: entry | recipe for name, entry in TINY.items()})
    seconds, done = dvc(folder, "repro")
    return result(what, done, f"succeeded in {seconds:.0f} s")


def make_images(folder: Path, classes: int, per_class: int) -> Path:
    """Write images of noise, in a folder for each class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(classes):
            place = folder / split / f"class {number:04}"
            place.mkdir(parents=True)
            for image in range(per_class):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{image}.png")
    return folder


def many_images(folder: Path, count: int) -> Row:
    """Prepare and read very many images."""
    copy_study(folder, {"data": {"train_size": count, "val_size": 1000, "test_size": 1000}}, TINY)
    seconds, done = dvc(folder, "repro", "prepare")
    if done.returncode:
        return result(f"{count:,} training images", done, "")
    code = (
        "import time; from cifarpipe.store.prepared import load_prepared; t = time.time(); "
        "load_prepared().train; print(time.time() - t)"
    )
    read = statistics.median(float(python(folder, code)) for _ in range(3))
    return Row(f"{count:,} training images (synthetic)", 1,
               f"prepared in {seconds:.0f} s; opened, with checksums, in {read:.1f} s")  # fmt: skip
