"""Run a whole study within a time limit: `python -m benchmarks.gpu_study DIR`.

It runs `dvc repro` in a copy of the pipeline, with the images in `$CIFARPIPE_DATA`. Some models
share the GPU, so that it has work while one of them starts or compiles. If the time runs out first,
the exit code is 75, and the next call on the same machine resumes. DIR gets timing.csv (the seconds
of each stage and epoch) and, in parts of 15 MB, an archive of the reports, logs, locks, parameters,
predictions and weights (`cat study.tar.gz.* | tar xz`). Environment variables:

- PARAMS: another file than params.yaml.
- JOBS: how many models at a time; by default 5.
- ARTIFACTS: models, separated by spaces. The archive then has all of their artifacts and nothing
  else. Without it, no maps, and only weights of at most `SMALL` bytes: what comes back in one call
  must not exceed 64 MiB.
"""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.kills import DATA, MODELS
from benchmarks.machine import TOY
from benchmarks.study import ROOT, environment, refresh_pipeline, write_params
from benchmarks.tasks import HOME, UNFINISHED, command_line
from benchmarks.timing import STOPPED, stage_table
from cifarpipe.config.command import USER_ERROR
from cifarpipe.config.machine import SHARE_GPUS
from cifarpipe.store.outputs import write_csv
from cifarpipe.store.paths import raw_root

STUDY = HOME / "study"
LOG = STUDY / "run.log"
ARCHIVED = (
    "reports", "logs", "params.yaml", "dvc.lock", "data/dvc.lock", "data/source.json",
    "artifacts/*/predictions.csv",
)  # fmt: skip
JOBS = int(os.environ.get("JOBS", "5"))
SMALL = 10_000_000
PART = 15_000_000  # bytes of a part of the archive
PARTS = 4  # at most
TO_STOP = 20.0  # seconds for the stages to stop, and then for the archive


def data_source() -> dict[str, str | None] | None:
    """Return the keys of section `data` that read the images in the raw-data folder, if any."""
    root = raw_root()
    if (root / "cifar-10-python.tar.gz").exists():
        return {"source": "cifar10", "folder": None}
    if found := sorted(root.glob("images/**/train")):
        return {"source": "folder", "folder": str(found[0].parent.relative_to(root))}
    return {"source": "synthetic", "folder": None} if TOY else None


def prepare_study(data: dict[str, str | None]) -> None:
    """Copy the pipeline; results of an earlier call stay."""
    (STUDY / "data").mkdir(parents=True, exist_ok=True)
    (STUDY / "reports").mkdir(exist_ok=True)
    refresh_pipeline(STUDY)
    if TOY:
        models = {name: {**options, "epochs": 40} for name, options in MODELS.items()}
        changes = {"data": {**DATA, **data}, "gradcam": {"removal_images": 20}}
        write_params(STUDY, ROOT / "params.demo.yaml", changes, models)
    else:
        source = ROOT / os.environ.get("PARAMS", "params.yaml")
        write_params(STUDY, source, {"data": data})


def reproduce(until: float) -> int | None:
    """Run all stages, `JOBS` models at a time.

    Every line of output is printed, and added to the log after the second in which it came.

    Args:
        until: Unix time at which to stop.

    Returns:
        The exit code; None if it was stopped.
    """

    def note(lines: Iterable[str]) -> None:
        with LOG.open("a", encoding="utf-8") as file:
            for line in lines:
                print(line, end="", flush=True)
                file.write(f"{time.time():.0f} {line}")
                file.flush()

    variables = environment(**{"PYTHONUNBUFFERED": "1", SHARE_GPUS: "1"})
    command = [sys.executable, "-m", "cifarpipe", "repro", "--jobs", str(JOBS)]
    process = subprocess.Popen(
        command, cwd=STUDY, env=variables, start_new_session=True, text=True,
        errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    reader = threading.Thread(target=note, args=[process.stdout], daemon=True)
    reader.start()
    stopped = False
    try:
        process.wait(timeout=max(1.0, until - time.time()))
    except subprocess.TimeoutExpired:
        stopped = True
    finally:
        end_group(process)
    reader.join(timeout=5)
    if stopped:
        note([f"{STOPPED}\n"])
        return None
    return process.returncode


def end_group(process: subprocess.Popen[str]) -> None:
    """Stop a process and all that it started, which share a group: ask first, then kill."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=TO_STOP / 2)


def write_results(folder: Path) -> None:
    """Write the times, and the archive in parts."""
    write_csv(folder / "timing.csv", stage_table(LOG, STUDY / "logs"))
    if "ARTIFACTS" in os.environ:
        names = os.environ["ARTIFACTS"].split()
        folders = [STUDY / "artifacts" / name for name in names]
        paths = [path for path in folders if path.exists()]  # some may not be trained yet
    else:
        paths = [path for pattern in ARCHIVED for path in sorted(STUDY.glob(pattern))]
        weights = STUDY.glob("artifacts/*/model.safetensors")
        paths += [LOG, *(path for path in weights if path.stat().st_size <= SMALL)]
    for old in folder.glob("study.tar.gz.*"):
        old.unlink()
    buffer = io.BytesIO()
    # Outputs may be links to DVC's cache; the archive gets the files themselves.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1, dereference=True) as archive:
        for path in paths:
            archive.add(path, str(path.relative_to(STUDY)))
    content = buffer.getvalue()
    parts = [content[start : start + PART] for start in range(0, len(content), PART)]
    for number, part in enumerate(parts):
        (folder / f"study.tar.gz.{number:02d}").write_bytes(part)
    if len(parts) > PARTS:
        print(f"warning: the archive has {len(parts)} parts, more than {PARTS}")


def main(folder: Path, until: float) -> int:
    """Run the study as far as the time allows; return the exit code."""
    data = data_source()
    if data is None:
        print(f"error: no images in {raw_root()}; see benchmarks/gpu_session.sh")
        return USER_ERROR
    prepare_study(data)
    code = reproduce(until - TO_STOP)
    write_results(folder)
    print((folder / "timing.csv").read_text(encoding="utf-8"))
    if code is None:
        print("stopped; the same command resumes")
        return UNFINISHED
    return code


if __name__ == "__main__":
    command_line({}, main)
