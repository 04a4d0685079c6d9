"""Run the pipeline with several models side by side; `dvc repro` alone runs one stage at a time."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from dvc.utils.serialize import modify_yaml

from cifarpipe.cli.dvc_command import dvc_command, environment
from cifarpipe.config.machine import cores
from cifarpipe.config.reader import load_params

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
THREADS = "OMP_NUM_THREADS"


def reproduce(jobs: int) -> int:
    """Run what has changed, the stages of `jobs` models at a time; one at a time is `dvc repro`.

    Each line that a model's stages print starts with its name. A model that fails does not stop the
    others; the report is written if none has failed. The results are those of `dvc repro` with the
    same number of threads.

    Args:
        jobs: Models at a time. On a CPU they share the cores, unless `OMP_NUM_THREADS` is set;
            of several GPUs each training locks one of its own.

    Returns:
        The exit code of DVC; 1 if one of several models has failed.
    """
    if jobs == 1:
        return _run(dvc_command("repro"))
    models = list(load_params().models)
    shared, per_model = stages()
    if code := _run(dvc_command("repro", *shared)):
        return code
    threads = max(cores() // jobs, 1)
    variables = {THREADS: str(threads), **environment()}
    printing = threading.Lock()

    def run_model(name: str) -> int:
        def show(line: str) -> None:
            with printing:
                print(f"{name} | {line}", end="", flush=True)

        targets = [f"{stage}@{name}" for stage in per_model]
        command = dvc_command("--wait-for-lock", "repro", "--single-item", *targets)
        return _run(command, variables, show)

    with ThreadPoolExecutor(jobs) as pool:
        codes = dict(zip(models, pool.map(run_model, models), strict=True))
    failed = [name for name, code in codes.items() if code]
    code = 1 if failed else _run(dvc_command("repro"))
    sort_lock([*shared, *(f"{stage}@{name}" for stage in per_model for name in models)])
    if failed:
        print(
            f"error: failed: {', '.join(failed)}. The report was not written; the results of all "
            f"other models are complete. Correct the error above, and repeat the command.",
            file=sys.stderr,
        )
    return code


def stages() -> tuple[list[str], list[str]]:
    """Return the stages of `dvc.yaml` on which all models depend, and those of each model."""
    found = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]
    per_model = [name for name, stage in found.items() if "foreach" in stage]
    before = list(found)[: list(found).index(per_model[0])]
    return before, per_model


def sort_lock(order: Sequence[str], path: Path = LOCK) -> None:
    """Bring the stages of a lock file into the order in which `dvc repro` runs them.

    Args:
        order: Names of stages; all others come after these, in their own order.
        path: The lock file; nothing happens without it.
    """
    if not path.exists():
        return
    place = {name: number for number, name in enumerate(order)}
    with modify_yaml(path) as content:
        found = content.get("stages", {})
        for name in sorted(found, key=lambda name: place.get(name, len(place))):
            found[name] = found.pop(name)


def _run(
    command: list[str],
    variables: dict[str, str] | None = None,
    show: Callable[[str], None] | None = None,
) -> int:
    """Run a command and return its exit code.

    Args:
        command: The command.
        variables: Of its environment; by default ours.
        show: Gets each line of its output; by default it writes to our own.
    """
    if show is None:
        return subprocess.run(command, env=environment(), check=False).returncode
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        show(line)
    return process.wait()
