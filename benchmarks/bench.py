"""Measure the speed of the pipeline, next to an ordinary PyTorch loop; `make bench`.

Writes docs/performance_gpu.md if there is a GPU, else docs/performance_cpu.md. Both are timed
alternately in one run and their medians compared, since machines are shared and noisy.
`python -m benchmarks.bench Augmentation Start-up` measures only these sections and keeps the others
of the page, which must be of the same machine and package versions. `--page FILE` writes another
page, for example of emulated AVX2 (`EMULATION`). With `TOY` set, the page is in logs/.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from benchmarks.machine import TOY, Machine, processor, this_machine
from benchmarks.passes import augmentation, evaluation, growth, start_up, whole_epoch
from benchmarks.profiles import profiles
from benchmarks.steps import compiling, kept_memory, optimizer_share, train_step
from benchmarks.study import ROOT
from cifarpipe.networks.devices import device_name
from cifarpipe.report.provenance import git_revision
from cifarpipe.store.outputs import write_text

# Environment variables by which PyTorch, oneDNN and MKL use fewer instructions than the CPU has.
EMULATION = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def sections(machine: Machine) -> dict[str, Callable[[], str]]:
    """Return all sections of the page: their headings, and what measures and writes each."""
    return {
        "Augmentation": lambda: augmentation(machine),
        "Train step": lambda: train_step(machine),
        "Train step in fp32": lambda: train_step(machine, "fp32"),
        "Kinds of operations": lambda: profiles(machine),
        "Optimizer": lambda: optimizer_share(machine),
        "Kept memory": lambda: kept_memory(machine),
        "Compiling": lambda: compiling(machine),
        "Whole epoch": lambda: whole_epoch(machine),
        "Evaluation": lambda: evaluation(machine),
        "More images": lambda: growth(machine),
        "Start-up": start_up,
    }


def main() -> None:
    """Measure all sections, or those named on the command line, and write the page."""
    machine = this_machine()
    measurements = sections(machine)
    kind = "gpu" if machine.device.type == "cuda" else "cpu"
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description="Measure the speed of the pipeline, next to an ordinary PyTorch loop.",
    )
    parser.add_argument("section", nargs="*", help=f"of {', '.join(measurements)}; default: all")
    parser.add_argument("--page", default=f"performance_{kind}.md", help="name of a file in docs/")
    chosen = parser.parse_args()
    if Path(chosen.page).name != chosen.page:
        parser.error("--page is the name of a file in docs/, without folders")
    if emulated() and chosen.page == f"performance_{kind}.md":
        parser.error(f"{', '.join(emulated())} set: name another file by --page")
    names = chosen.section or list(measurements)
    if unknown := set(names) - set(measurements):
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(measurements)}")
    page = ROOT / ("logs" if TOY else "docs") / chosen.page
    head, (old_head, texts) = page_head(machine, command(chosen.page, kind)), read_page(page)
    if old_head not in ("", head) and not set(measurements) <= set(names):
        sys.exit(
            f"{page.relative_to(ROOT)} was measured on another machine, with other versions or by "
            f"another command:\n{old_head}\nMeasure all sections, so that they can be compared."
        )
    if old_head != head:
        texts = {}
    for name in tqdm(names, disable=None, leave=False):
        texts[name] = f"{measurements[name]()}\nRevision {git_revision()}.\n"
        print(f"## {name}\n\n{texts[name]}", flush=True)
        in_order = {each: texts[each] for each in measurements if each in texts}
        write_text(page, page_text(head, in_order))
    print(f"written: {page.relative_to(ROOT)}")


def emulated() -> list[str]:
    """Return the variables of `EMULATION` that are set."""
    return [name for name in EMULATION if os.environ.get(name)]


def command(page: str, kind: str) -> str:
    """Return the command that writes a page, with the variables of `EMULATION` that are set."""
    words = [f"{name}={os.environ[name]}" for name in emulated()]
    default = page == f"performance_{kind}.md"
    words.append("make bench" if default else f"python -m benchmarks.bench --page {page} …")
    return " ".join(words)


def page_head(machine: Machine, command: str) -> str:
    """Return the page's head: what it was measured on, and by which command."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "dvc"))
    return (
        f"# Measured on {'a GPU' if machine.device.type == 'cuda' else 'a CPU'}\n\n"
        f"By `{command}`; [performance.md](performance.md) explains the numbers. "
        f"{device_name(machine.device)}; {processor()}; Python {platform.python_version()}, "
        f"{packages}. Medians of {machine.size.repeats} (`Compiling`: of 5); a row's figures were "
        f"timed alternately, except in `Optimizer` and `Whole epoch`.\n"
    )


def page_text(head: str, texts: dict[str, str]) -> str:
    """Return the page."""
    return head + "".join(f"\n## {name}\n\n{text}" for name, text in texts.items())


def read_page(page: Path) -> tuple[str, dict[str, str]]:
    """Return the head and the sections, by heading, of the page of an earlier run, if any."""
    if not page.is_file():
        return "", {}
    head, *parts = page.read_text(encoding="utf-8").split("\n## ")
    sections = (part.partition("\n") for part in parts)
    return head, {name: body.strip("\n") + "\n" for name, _, body in sections}


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
