"""Check that dvc.lock is what `dvc repro` would write."""

import json
import re

from cifarpipe.cli.dvc_command import run_dvc
from cifarpipe.config.errors import UserError

ALWAYS_RUN = {"data/dvc.yaml:check"}


def check_current() -> None:
    """Print that dvc.lock is up to date.

    Raises:
        UserError: It is not; with the stages that would run, and what changed for the first one. Or
            DVC failed, with its message.
    """
    done = run_dvc("repro", "--dry", "--allow-missing")
    output = done.stdout + done.stderr
    stages = stale_stages(output)
    if not stages and done.returncode:
        raise UserError(f"`dvc repro --dry --allow-missing` failed:\n{output.strip()}")
    if stages:
        # Without the data, DVC stops at the first stage that it can't follow.
        more = " …" if done.returncode else ""
        changed = ", ".join(changed_inputs(run_dvc("status", "--json", stages[0]).stdout))
        since = f"\nChanged since {stages[0]} ran: {changed}." if changed else ""
        raise UserError(
            f"dvc.lock is not up to date: `dvc repro` would run {' '.join(stages)}{more}.{since}\n"
            f"Run it and commit its results."
        )
    print("dvc.lock is up to date.")


def stale_stages(output: str) -> list[str]:
    """Return the stages that a dry run would run, from its output.

    If a stage would run and one of its inputs is missing, DVC fails even in a dry run.
    """
    found = re.findall(
        r"^(?:Running stage|ERROR: failed to reproduce) '(.+?)':", output, re.MULTILINE
    )
    return [stage for stage in dict.fromkeys(found) if stage not in ALWAYS_RUN]


def changed_inputs(status: str) -> list[str]:
    """Return which files and parameters of a stage changed.

    A missing file does not count: a clone need not have it.

    Args:
        status: What `dvc status --json` prints for one stage.
    """
    try:
        entries = [entry for stage in json.loads(status).values() for entry in stage]
    except ValueError:  # DVC failed
        return []
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict):  # "changed command"
            found.append(entry)
            continue
        for path, what in entry.get("changed deps", {}).items():
            if isinstance(what, dict):
                found += [f"`{key}` in {path}" for key in what]
            elif what == "modified":
                found.append(path)
    return found
