"""Run tasks in processes of their own until a deadline; what is finished is kept for the next call.

A task is a function that returns rows of a table. It runs in a process of its own, so that one that
crashes, hangs or spoils the GPU's state does not affect the others.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import TOY
from benchmarks.study import ROOT, environment
from cifarpipe.config.machine import cores
from cifarpipe.store.outputs import write_json
from cifarpipe.training.resume import fingerprint

UNFINISHED = 75  # exit code: the same command goes on
HOME = ROOT / ".gpu_session"  # what calls leave for later calls on the same machine
LOG_BYTES = 200_000  # kept of each task's log
POLL = 0.1  # seconds between looks at the running tasks

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A function and its arguments, by name."""

    name: str
    """Function and arguments, separated by spaces."""
    limit: float
    """Seconds after which it has failed."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: str
    seconds: float
    rows: list[Row]
    error: str | None
    """The last line of its output, if it failed."""


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    temporary: Path
    """Its own folder of temporary files, with the compiler's cache and the locks of GPUs in it."""
    start: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def kill(self) -> None:
        """End it with all the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)


class TaskRunner:
    """Runs the tasks of one module, `python -m benchmarks.MODULE`."""

    def __init__(self, module: str) -> None:
        """Prepare.

        Args:
            module: Its functions are the tasks. Outcomes of the same code and settings are kept.
        """
        self.module = module
        code = [ROOT / name for name in ("benchmarks", "cifarpipe", "stages")]
        params = [(ROOT / name).read_text(encoding="utf-8") for name in ("params.yaml", "dvc.yaml")]
        key = fingerprint({"toy": TOY, "params": params, "python": sys.version}, [], code)
        self.folder = HOME / f"{module}-{key[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        tasks: Sequence[Task],
        *,
        until: float,
        jobs: int,
        on_outcome: Callable[[list[Outcome]], None],
    ) -> bool:
        """Run the tasks that have no outcome yet.

        Args:
            tasks: In the order in which they are started.
            until: Unix time at which those that still run are stopped.
            jobs: How many run at a time.
            on_outcome: Called with all outcomes so far, at first and after each task.

        Returns:
            Whether all are finished.
        """
        waiting = [task for task in tasks if self.outcome(task) is None]
        running: list[_Running] = []
        on_outcome(self.outcomes(tasks))
        try:
            while (waiting or running) and time.time() < until:
                while waiting and len(running) < jobs:
                    running.append(self._start(waiting.pop(0), threads=max(1, cores() // jobs)))
                for each in list(running):
                    ended = each.process.poll() is not None
                    if ended or each.seconds > each.task.limit:
                        each.kill()
                        running.remove(each)
                        self._finish(each, ended=ended)
                        on_outcome(self.outcomes(tasks))
                time.sleep(POLL)
        finally:
            for each in running:
                each.kill()
                print(f"{each.task.name}: stopped after {each.seconds:.0f} s", flush=True)
        return not waiting and not running

    def outcome(self, task: Task) -> Outcome | None:
        """Return what became of a task, if it is finished."""
        path = self._path(task, "outcome.json")
        if not path.exists():
            return None
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))

    def outcomes(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Return the outcomes of all finished tasks."""
        return [each for task in tasks if (each := self.outcome(task)) is not None]

    def logs(self, tasks: Sequence[Task]) -> str:
        """Return what all tasks printed, the end of each."""
        parts = []
        for task in tasks:
            path = self._path(task, "log.txt")
            if path.exists():
                text = path.read_bytes()[-LOG_BYTES:].decode(errors="replace")
                parts.append(f"===== {task.name}\n{text}\n")
        return "".join(parts)

    def _path(self, task: Task, name: str) -> Path:
        return self.folder / task.name.replace(" ", "-") / name

    def _start(self, task: Task, *, threads: int) -> _Running:
        log = self._path(task, "log.txt")
        shutil.rmtree(log.parent, ignore_errors=True)
        log.parent.mkdir(parents=True)
        # Not in our folder: paths of sockets must be short.
        temporary = Path(tempfile.mkdtemp(prefix="task-"))
        command = [sys.executable, "-m", f"benchmarks.{self.module}", "--task", task.name]
        command += ["--rows", str(self._path(task, "rows.json"))]
        variables = environment(
            TMPDIR=str(temporary),
            PYTHONUNBUFFERED="1",
            OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", str(threads)),
            TORCHINDUCTOR_COMPILE_THREADS=str(threads),
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        return _Running(task, process, temporary, time.monotonic())

    def _finish(self, running: _Running, *, ended: bool) -> None:
        task, rows, error = running.task, self._path(running.task, "rows.json"), None
        if not ended:
            error = f"it took longer than {task.limit:.0f} s"
        elif running.process.returncode:
            lines = self._path(task, "log.txt").read_text(errors="replace").strip().splitlines()
            error = lines[-1] if lines else f"exit code {running.process.returncode}"
        found = json.loads(rows.read_text(encoding="utf-8")) if rows.exists() else []
        content = {"task": task.name, "seconds": running.seconds, "rows": found, "error": error}
        write_json(self._path(task, "outcome.json"), content)
        print(f"{task.name}: {error or 'done'} ({running.seconds:.0f} s)", flush=True)


def command_line(
    functions: Mapping[str, Callable[..., list[Any]]], main: Callable[[Path, float], int]
) -> None:
    """Run one task, or all of them.

    Args:
        functions: The tasks' functions; arguments are strings.
        main: Runs all tasks, given the folder of results and the Unix time at which to stop;
            returns the exit code.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, help="folder of the results")
    parser.add_argument("--until", type=float, default=math.inf, help="Unix time to stop at")
    parser.add_argument("--task", help="run only this one, in this process")
    parser.add_argument("--rows", type=Path, help="write its rows to this file")
    options = parser.parse_args()
    if options.task:
        function, *arguments = options.task.split(" ")
        write_json(options.rows, functions[function](*arguments))
        return
    if options.folder is None:
        parser.error("name a folder for the results")
    options.folder.mkdir(parents=True, exist_ok=True)
    raise SystemExit(main(options.folder, options.until))
