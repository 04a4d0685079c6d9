"""Check that training is correct on this machine's GPU: `python -m benchmarks.gpu_check DIR`.

Writes check.md, check.csv and check.log. All checks are made, whatever they find; the exit code is
1 if something is wrong, 75 if the time ran out first. On a CPU it checks what applies there.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from benchmarks import kills
from benchmarks.bench import page_head
from benchmarks.machine import TOY, Machine, table, this_machine
from benchmarks.noise import CLASSES, SIZE, as_prepared, noise_split
from benchmarks.study import ROOT, copy_study, environment
from benchmarks.tasks import UNFINISHED, Outcome, Row, Task, TaskRunner, command_line
from benchmarks.workloads import BATCH, LEARNING_RATE, how_computed, new_network, plan
from cifarpipe.config.architectures import ModelEntry
from cifarpipe.config.errors import UserError
from cifarpipe.config.machine import cores, shares_gpus
from cifarpipe.config.reader import load_params
from cifarpipe.networks.precision import computes_bf16
from cifarpipe.store.outputs import write_csv, write_text
from cifarpipe.training.batches import Batch
from cifarpipe.training.distributed import Share
from cifarpipe.training.execution import Execution
from cifarpipe.training.loop import Run, train
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import compare, make_step

OK, WRONG, SKIPPED = "ok", "WRONG", "skipped"
JOBS = 8  # checks at a time on a GPU, since most of their time is spent on the CPU
EPOCHS = 3
IMAGES, TOY_IMAGES = 45_000, 500
STEPS = 8
SHORT_BATCH = 5  # the number of the step whose batch is not whole, as the last one of an epoch
WAYS: dict[str, dict[str, Any]] = {
    "compiled": {"compiled": True},
    "graphed": {"graphed": True},
    "compiled and graphed": {"compiled": True, "graphed": True},
}
# Read by the compiler: without choices that depend on measured times.
WITHOUT_CHOICES = {"TORCHINDUCTOR_DETERMINISTIC": "1"}
MUON = {
    "name": "muon", "momentum": 0.95, "nesterov": True, "betas": [0.9, 0.95], "weight_decay": 0.05,
    "decay_on": "weights",
}  # fmt: skip


def row(check: str, subject: str, verdict: str, detail: str = "") -> Row:
    """Return a row of the table of results."""
    return {"check": check, "of": subject, "result": verdict, "detail": detail}


def models() -> dict[str, ModelEntry]:
    """Return all models."""
    return load_params(ROOT / ("params.demo.yaml" if TOY else "params.yaml")).models


def entries(machine: Machine) -> dict[str, ModelEntry]:
    """Return all models, with equal batch sizes; of a toy's only the measured ones."""
    found = models()
    names = machine.size.trained if TOY else found
    return {name: found[name].model_copy(update={"batch_size": BATCH}) for name in names}


def check_machine() -> list[Row]:
    """Check that the GPU and the compiler's tools are there."""
    machine = this_machine()
    print(page_head(machine, "benchmarks/gpu_session.sh check"))
    if machine.device.type == "cpu":
        return [row("machine", "GPU", SKIPPED, "there is no GPU")]
    if shutil.which("nvidia-smi"):
        print(subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout)
    gpu = torch.cuda.get_device_properties(machine.device)
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    product = (torch.ones(64, 64, device=machine.device) @ torch.ones(64, 64).cuda()).sum().item()
    bf16 = computes_bf16(machine.device)
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    return [
        row("machine", "GPU", OK if product == 64**3 else WRONG,
            f"{gpu.name}, {free:.0f} of {total:.0f} GiB free, CUDA {torch.version.cuda}"),
        row("machine", "bf16", OK if bf16 else WRONG),
        row("machine", "C compiler", OK if compiler else WRONG, str(compiler)),
        row("machine", "deterministic cuBLAS", OK if workspace else WRONG, str(workspace)),
    ]  # fmt: skip


def check_training(name: str) -> list[Row]:
    """Train a model by its recipe for some epochs; the step must be the planned one."""
    machine = this_machine()
    entry = models()[name].model_copy(update={"epochs": EPOCHS})
    execution = replace(plan(machine, entry), required=True)
    images, validation = (TOY_IMAGES, 200) if TOY else (IMAGES, 5000)
    data = as_prepared(noise_split(images), noise_split(validation))
    run = Run(name, entry, LEARNING_RATE, seed=0, keep="best")
    try:
        state = train(new_network(entry), data, run, execution)
    except UserError as error:
        return [row("training", name, WRONG, str(error).splitlines()[0])]
    first, *others = (epoch.seconds for epoch in state.rows)
    detail = f"{how_computed(execution)}: {first:.1f} s for the first epoch, then "
    detail += f"{len(data.train) / min(others):,.0f} images/s with validation"
    if machine.device.type == "cuda":
        detail += f", {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB"
    return [row("training", name, OK, detail)]


class Waiting(torch.nn.Module):
    """A network whose steps can't be captured, since it waits for the GPU."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        assert images.sum().item() == images.sum().item()  # not NaN
        logits: torch.Tensor = self.network(images)
        return logits


def check_fallback() -> list[Row]:
    """Train a network that can't be captured: eagerly, and with no harm to what follows."""
    machine = this_machine()
    if machine.device.type == "cpu":
        return [row("fallback", "a network that waits", SKIPPED, "graphs need a GPU")]
    entry = models()["vit"].model_copy(update={"epochs": EPOCHS})
    execution = replace(plan(machine, entry), compiled=False, graphed=True)
    data = as_prepared(noise_split(TOY_IMAGES), noise_split(200))
    state = train(
        Waiting(new_network(entry)), data, Run("vit", entry, LEARNING_RATE, 0, "best"), execution
    )
    torch.randn(1, device=machine.device)
    gibibytes = torch.cuda.max_memory_reserved() / 2**30
    verdict = OK if len(state.rows) == EPOCHS and gibibytes < 4 else WRONG
    return [row("fallback", "a network that waits", verdict, f"{gibibytes:.1f} GiB")]


def check_steps(name: str) -> list[Row]:
    """Compare some fast steps, of different batches and learning rates, with eager ones."""
    machine = this_machine()
    entry, rows = entries(machine)[name], []
    for precision in ("fp32", "bf16") if computes_bf16(machine.device) and not TOY else ("fp32",):
        eager = Execution(machine.device, precision)
        expected = some_steps(entry, eager)
        for way, options in WAYS.items():
            check = f"{way}, {precision}"
            if options.get("graphed") and machine.device.type == "cpu":
                rows.append(row(check, name, SKIPPED, "graphs need a GPU"))
                continue
            try:
                found = some_steps(entry, replace(eager, required=True, **options))
            except UserError as error:
                rows.append(row(check, name, WRONG, str(error).splitlines()[0]))
                continue
            reason = compare(found, expected)
            rows.append(row(check, name, WRONG if reason else OK, differences(found, expected)))
            print(rows[-1], flush=True)
    return rows


Trace = tuple[torch.Tensor, torch.Tensor]
"""The losses of some steps, and the change of all parameters."""


def some_steps(entry: ModelEntry, execution: Execution) -> Trace:
    """Train a new network for `STEPS` steps."""
    with execution.own_stream():
        return _some_steps(entry, execution)


def _some_steps(entry: ModelEntry, execution: Execution) -> Trace:
    torch.compiler.reset()
    model = execution.place(new_network(entry)).train()
    state = TrainingState(model, entry, execution.precision)
    step = make_step("check", state, model, entry, execution, size=BATCH)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    losses = []
    for number in range(1, STEPS + 1):
        size = BATCH // 2 if number == SHORT_BATCH else BATCH
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(size, 3, SIZE, SIZE, generator=generator).to(execution.device)
        labels = torch.randint(CLASSES, (size,), generator=generator).to(execution.device)
        batch = Batch(inputs, labels, Share(0, size, 1 / size))
        losses.append(step(batch, number * LEARNING_RATE)[0].clone())
    after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    return torch.stack(losses), after - before


def differences(found: Trace, expected: Trace) -> str:
    """Return in words by how much losses and updates differ, relative to the expected ones."""
    if all(map(torch.equal, found, expected)):
        return "the same bits"
    losses, updates = (
        float((now - was).norm() / was.norm()) for now, was in zip(found, expected, strict=True)
    )
    return f"losses differ by {losses:.1e}, updates by {updates:.1e}"


def check_bits(name: str) -> list[Row]:
    """Train twice, in two processes with empty caches of the compiler; compare all bits.

    If they differ, also check the eager steps, and the compiler without choices that depend on
    measured times.
    """
    rows = [same_bits("planned", name)]
    if rows[0]["result"] != OK:
        rows.append(same_bits("eager", name))
        rows.append(same_bits("planned", name, **WITHOUT_CHOICES))
    return rows


def same_bits(way: str, name: str, **variables: str) -> Row:
    """Compare two trainings in processes of their own.

    Args:
        way: `planned` or `eager`.
        name: Of the model.
        **variables: Of the environment.
    """
    check = ", ".join(["same bits twice", way, *variables])
    found: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / number for number in ("first", "second")]
        processes = []
        for folder in folders:
            folder.mkdir()
            command = [
                sys.executable,
                "-m",
                "benchmarks.gpu_check",
                "--task",
                f"digest {way} {name}",
            ]
            command += ["--rows", str(folder / "rows.json")]
            # One after the other on a CPU, whose cores they would share.
            start = subprocess.Popen if torch.cuda.is_available() else subprocess.run
            processes.append(
                start(command, cwd=ROOT, env=environment(TMPDIR=str(folder), **variables))
            )
        for folder, process in zip(folders, processes, strict=True):
            if isinstance(process, subprocess.Popen):
                process.wait()
            if process.returncode:
                return row(check, name, WRONG, f"exit code {process.returncode}")
            found += [str(each) for each in json.loads((folder / "rows.json").read_text())]
    same = len(set(found)) == 1 and not found[0].startswith("error")
    return row(check, name, OK if same else WRONG, " / ".join(dict.fromkeys(found)))


def digest(way: str, name: str) -> list[str]:
    """Train for two short epochs; return how, and a digest of everything that changed."""
    machine = this_machine()
    entry = entries(machine)[name].model_copy(update={"epochs": 2})
    execution = replace(plan(machine, entry), required=True)
    if way == "eager":
        execution = replace(execution, compiled=False, graphed=False)
    data = as_prepared(noise_split((4 if TOY else 20) * BATCH + 50), noise_split(200))
    run = Run(name, entry, LEARNING_RATE, seed=0, keep="best")
    try:
        state = train(new_network(entry), data, run, execution)
    except UserError as error:
        return [f"error: {str(error).splitlines()[0]}"]
    bits = hashlib.sha256()
    for tensor in [*state.tensors(), *state.kept_weights.values()]:
        bits.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return [f"{how_computed(execution)}: {bits.hexdigest()[:16]}"]


def check_kills() -> list[Row]:
    """Kill the training of two small models; compare their results with uninterrupted ones."""
    epochs = 40 if TOY else 200
    small = {name: {**options, "epochs": epochs} for name, options in kills.MODELS.items()}
    small["vit"]["optimizer"] = MUON
    moments = [
        kills.after_epochs(epochs // 4, models=1),
        kills.after_epochs(epochs // 2, models=2),
    ]
    runs = kills.compare_runs(moments, small)
    verdict = OK if runs.equal and runs.resumed >= len(moments) else WRONG
    different = [name for name in runs.expected if runs.expected[name] != runs.found[name]]
    detail = f"{len(moments)} kills, {runs.resumed} resumed, {runs.left_over} states left over"
    if different:
        detail += f"; different: {', '.join(different)}"
    return [row("resumed after a kill", ", ".join(small), verdict, detail)]


def check_sharing() -> list[Row]:
    """Run two small studies at the same time, all stages; compare all their outputs."""
    small = {
        **{name: {**options, "epochs": 2} for name, options in kills.MODELS.items()},
        "resnet18_ln": {"epochs": 2},
    }
    small["vit"]["optimizer"] = MUON
    if TOY:
        small = {"vit": small["vit"]}
    changes = {"data": kills.DATA, "gradcam": {"removal_images": 20}, "misclassified": {"count": 4}}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("first", "second")]
        processes = []
        for folder in folders:
            copy_study(folder, changes, small)
            with (folder / "log.txt").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        ["dvc", "repro"], cwd=folder, env=environment(), stdout=log, stderr=log
                    )
                )
        codes = [process.wait() for process in processes]
        logs = [(folder / "log.txt").read_text(errors="replace") for folder in folders]
        print("\n".join(logs), flush=True)
        for name, code, log_text in zip(("first", "second"), codes, logs, strict=True):
            detail = log_text.strip().splitlines()[-1] if code else "all stages ran"
            rows.append(row("two studies at once", name, WRONG if code else OK, detail))
        if any(codes):
            return rows
        # Parsed, since stages finish in any order.
        first, second = (yaml.safe_load((folder / "dvc.lock").read_text()) for folder in folders)
        same = first == second
        rows.append(row("two studies at once", "the same outputs", OK if same else WRONG))
        if torch.cuda.is_available() and not shares_gpus():
            waited = any("free of other trainings" in log for log in logs)
            detail = "one waited for the GPU" if waited else "none waited for the GPU"
            rows.append(
                row("two studies at once", "the GPU's lock", OK if waited else WRONG, detail)
            )
    return rows


FUNCTIONS: dict[str, Callable[..., list[Any]]] = {
    "machine": check_machine,
    "training": check_training,
    "fallback": check_fallback,
    "sharing": check_sharing,
    "kills": check_kills,
    "steps": check_steps,
    "bits": check_bits,
    "digest": digest,
}


def all_tasks() -> list[Task]:
    """Return all checks, the most valuable first."""
    found = models()
    names = [name for name in found if not TOY or name in ("vit", "convmixer")]
    networks: dict[str, str] = {}  # models with the same network and optimizer make the same steps
    for name in names:
        entry = found[name]
        networks.setdefault(f"{entry.architecture} {entry.optimizer} {entry.clip_norm}", name)
    return [
        Task("machine", 120),
        *(Task(f"training {name}", 200) for name in networks.values()),
        Task("fallback", 120),
        Task("sharing", 480),
        Task("kills", 400),
        *(Task(f"steps {name}", 400) for name in networks.values()),
        *(Task(f"bits {name}", 400) for name in names),
    ]


def write_results(folder: Path, runner: TaskRunner, outcomes: list[Outcome]) -> None:
    """Write the table of what is finished, and the logs."""
    rows = []
    for each in outcomes:
        if each.error:
            check, _, subject = each.task.partition(" ")
            rows.append(row(check, subject, WRONG, each.error))
        rows += each.rows
    columns = ["check", "of", "result", "detail"]
    results = pd.DataFrame(rows, columns=columns)
    write_csv(folder / "check.csv", results)
    missing = len(all_tasks()) - len(outcomes)
    head = f"# Checks\n\n{missing} of {len(all_tasks())} checks are not finished.\n\n"
    text = table(columns, results.to_numpy().tolist())
    write_text(folder / "check.md", (head if missing else "# Checks\n\n") + text)
    write_text(folder / "check.log", runner.logs(all_tasks()))


def main(folder: Path, until: float) -> int:
    """Make all checks; print a table."""
    runner = TaskRunner("gpu_check")
    jobs = min(JOBS, max(1, cores() // 2)) if torch.cuda.is_available() else 1
    finished = runner.run(
        all_tasks(), until=until, jobs=jobs, on_outcome=partial(write_results, folder, runner)
    )
    print((folder / "check.md").read_text(encoding="utf-8"))
    if not finished:
        return UNFINISHED
    wrong = pd.read_csv(folder / "check.csv").result.eq(WRONG).sum()
    print(f"Python {platform.python_version()}, torch {torch.__version__}: {wrong} wrong results")
    return int(wrong > 0)


if __name__ == "__main__":
    command_line(FUNCTIONS, main)
