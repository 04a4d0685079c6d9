"""Check that dvc.lock is what `dvc repro` would write."""

import re
import subprocess
import sys

from cifarpipe.config.errors import UserError

ALWAYS_RUN = {"data/dvc.yaml:check"}


def check_current() -> None:
    """Print that dvc.lock is up to date.

    Raises:
        UserError: It is not; with the stages that would run. Or DVC failed, with its message.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    stages = stale_stages(output)
    if not stages and done.returncode:
        raise UserError(f"`dvc repro --dry --allow-missing` failed:\n{output.strip()}")
    if stages:
        # Without the data, DVC stops at the first stage that it can't follow.
        more = " …" if done.returncode else ""
        raise UserError(
            f"dvc.lock is not up to date: `dvc repro` would run {' '.join(stages)}{more}.\n"
            f"Run it and commit its results."
        )
    print("dvc.lock is up to date.")


def stale_stages(output: str) -> list[str]:
    """Return the stages that a dry run would run, from its output."""
    found = re.findall(r"^Running stage '(.+)':$", output, re.MULTILINE)
    return [stage for stage in found if stage not in ALWAYS_RUN]
