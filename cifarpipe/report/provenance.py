"""Which revision and which package versions a report was made by."""

import platform
import subprocess
from importlib.metadata import version

PACKAGES = ("torch", "torchvision", "grad-cam", "numpy", "dvc")
SOURCES = ("cifarpipe", "stages", "dvc.yaml", "params.yaml")  # everything that shapes results


def provenance() -> dict[str, str]:
    """Return the git revision and the versions of Python and of `PACKAGES`."""
    return {
        "revision": git_revision(),
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def git_revision() -> str:
    """Return the abbreviated commit that last changed code or parameters.

    So a commit of documents, or of the results themselves, does not change the report. In a folder
    that git does not track, it is the current commit.

    Returns:
        The commit, marked if files differ from it; `none` outside a repository.
    """
    try:
        revision = _git("log", "-1", "--format=%h", "--abbrev=12", "HEAD", "--", *SOURCES)
        changed = _git("status", "--porcelain", "--", *SOURCES)
        revision = revision or _git("rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{revision} with changes" if changed else revision


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
