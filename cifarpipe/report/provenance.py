"""Which revision and which package versions a report was made by."""

import platform
import subprocess
from importlib.metadata import version

REPORTED = ("torch", "torchvision", "grad-cam", "numpy", "dvc")
MAKERS = ("cifarpipe", "stages", "dvc.yaml", "params.yaml")  # all that results follow from


def provenance(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the revision and the versions of Python and some packages, by name."""
    return {
        "revision": git_revision(),
        "Python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def git_revision() -> str:
    """Return the commit that last changed what makes results, shortened.

    So results do not change with a commit of documents, or of themselves. Where that commit is not
    known, since git does not track this folder, it is the current one.

    Returns:
        It; marked where files differ from it; `none` outside a repository.
    """
    try:
        revision = _git("log", "-1", "--format=%h", "--abbrev=12", "HEAD", "--", *MAKERS)
        changed = _git("status", "--porcelain", "--", *MAKERS)
        revision = revision or _git("rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{revision} with changes" if changed else revision


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
