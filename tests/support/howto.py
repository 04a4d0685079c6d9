"""The how-tos of docs/ as scripts: their commands, in order, where nothing can break."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.study_setting import run

Check = Callable[[Path, subprocess.CompletedProcess[str]], None]


def follow(
    text: str, folder: Path, checks: Mapping[str, Check], stand_ins: Mapping[str, str]
) -> None:
    """Run all commands of a how-to and look at what came of each.

    What was typed and said is printed: it is what the page should show.

    Args:
        text: The page.
        folder: Where to begin; `cd` leads elsewhere, as in a terminal.
        checks: What must hold after a command; one without a check is a fault of the page's test.
        stand_ins: What is written instead of parts of commands.
    """
    for command in commands(text):
        typed = command
        for part, other in stand_ins.items():
            typed = typed.replace(part, other)
        with TemporaryDirectory() as aside:
            place = Path(aside) / "pwd"
            done = run(folder, "bash", "-euc", f"trap 'pwd > {place}' EXIT\n{typed}")
            folder = Path(place.read_text().strip())
        print(f"$ {command}\n{done.stdout}{done.stderr}", flush=True)
        assert command in checks, f"nothing is checked after: {command}"
        checks[command](folder, done)


def commands(text: str) -> Iterator[str]:
    """Find the commands in a page's blocks of console, without the comments behind them."""
    inside = False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            yield line[2:].partition("  #")[0].rstrip()
