"""What a report was made by: code, packages, machine."""

import platform
import subprocess
from importlib.metadata import version

PACKAGES = ("torch", "torchvision", "grad-cam", "numpy", "dvc")


def provenance() -> dict[str, str]:
    """Return what stands in a report's footer, by name."""
    return {
        "revision": git_revision(),
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def git_revision() -> str:
    """Return the short commit, marked where files differ from it; `none` outside a repository."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        # reports/ and dvc.lock are what is being written, so they do not count.
        where = ("--", ".", ":!reports", ":!dvc.lock")
        changed = _git("status", "--porcelain", "--untracked-files=no", *where)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{revision} with changes" if changed else revision


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
