"""Run the commands of a how-to page in order."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.study import run

Check = Callable[[Path, subprocess.CompletedProcess[str]], None]


def follow(
    text: str, folder: Path, checks: Mapping[str, Check], stand_ins: Mapping[str, str]
) -> None:
    """Run all commands of a how-to and check the result of each.

    Commands and outputs are printed: the page should show them.

    Args:
        text: The page.
        folder: Where to start; `cd` changes it, as in a terminal.
        checks: Called after each command; every command needs one.
        stand_ins: Replacements for parts of commands.
    """
    for command in commands(text):
        executed = command
        for part, other in stand_ins.items():
            executed = executed.replace(part, other)
        with TemporaryDirectory() as aside:
            place = Path(aside) / "pwd"
            done = run(folder, "bash", "-euc", f"trap 'pwd > {place}' EXIT\n{executed}")
            folder = Path(place.read_text().strip())
        print(f"$ {command}\n{done.stdout}{done.stderr}", flush=True)
        assert command in checks, f"no check for: {command}"
        checks[command](folder, done)


def commands(text: str) -> Iterator[str]:
    """Yield the commands in a page's `console` blocks, without their comments."""
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            yield line[2:].partition("  #")[0].rstrip()
