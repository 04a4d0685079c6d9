"""Submit experiments as an array of jobs."""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifarpipe.cli.slurm.plan import JOB, JOBS, LOCAL, Plan, PlannedExperiment, output, write_plan
from cifarpipe.cli.slurm.status import unfinished
from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import how_to_undo, load_params
from cifarpipe.config.schema import PARAMS_FILE
from cifarpipe.store.outputs import write_text
from cifarpipe.store.paths import raw_root

SHOWN = 10  # changed files that are listed


def submit(
    settings: Path | None, *, name: str | None, origin: str | None, options: list[str]
) -> None:
    """Submit experiments as an array of jobs.

    Args:
        settings: A file with a line of `-S` options per experiment; None: those of DVC's queue.
        name: Begins the names of those of `settings`; by default the file's name.
        origin: A git repository in place of this folder, if the nodes do not see it.
        options: Of `sbatch`.

    Raises:
        UserError: There is no experiment, one can't be run elsewhere, or `sbatch` rejects the jobs.
    """
    load_params()
    if not shutil.which("sbatch"):
        raise UserError("`sbatch` is not installed here: run this on a login node of a cluster.")
    if settings is not None:
        experiments = read_settings(settings, settings.stem if name is None else name)
    else:
        experiments = queued_experiments()
    names = [each.name for each in experiments]
    refuse_names(names)
    remotes = remote_folders() if origin else {}
    if origin:
        require_pushed(origin, {each.revision for each in experiments})
    plan = Plan(
        origin=origin or str(Path.cwd()),
        cache=None if origin else output("dvc", "cache", "dir"),
        local_config=LOCAL.read_text(encoding="utf-8") if LOCAL.is_file() else "",
        remotes=remotes,
        raw=str(raw_root().resolve()),
        author=author(),
        experiments=experiments,
    )
    JOBS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="", dir=JOBS)).resolve()
    write_plan(folder, plan)
    command = [
        "sbatch", "--parsable", "--job-name=cifarpipe", *options,
        f"--array=0-{len(experiments) - 1}", f"--output={folder}/%a.log",
        "--wrap", task_command(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder)
        raise UserError(f"`sbatch` rejected the jobs: {done.stderr.strip()}")
    job = done.stdout.strip().split(";")[0]
    write_text(folder / JOB, job)
    print(
        f"Job {job}: {len(names)} experiment{'s' * (len(names) > 1)}, {', '.join(names)}.\n"
        f"`cifarpipe slurm` shows their state; their output is in {folder}.\n"
        f"Finished ones are in `dvc exp show` and `cifarpipe sweep`."
    )
    if settings is None:
        output("dvc", "queue", "remove", *names)


def task_command(folder: Path) -> str:
    """Return the shell command of a job."""
    words = [sys.executable, "-m", "cifarpipe.cli.slurm.task", str(folder)]
    return f'exec {shlex.join(words)} "$SLURM_ARRAY_TASK_ID"'


def read_settings(file: Path, name: str) -> list[PlannedExperiment]:
    """Return the experiments of a file: a line of `-S KEY=VALUE …` for each.

    Empty lines and what follows a `#` are left out.

    Args:
        file: The file.
        name: Begins the names of the experiments.

    Raises:
        UserError: The file can't be read, a line is not allowed, there is none, or changes are not
            committed.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UserError(f"--settings {file} can't be read: {reason}.") from None
    refuse_changes()
    revision = output("git", "rev-parse", "HEAD")
    found: list[PlannedExperiment] = []
    for number, line in enumerate(lines, start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: {str(error).lower()}: {line!r}") from None
        if not words:
            continue
        overrides = words[1::2]
        if (
            len(words) % 2
            or any(each != "-S" for each in words[::2])
            or not all("=" in each for each in overrides)
        ):
            raise UserError(
                f"{file}, line {number}: {line!r}; allowed: -S KEY=VALUE, any number of times."
            )
        try:
            check_overrides(overrides)
        except UserError as error:
            raise UserError(f"{file}, line {number}: {error}") from None
        found.append(PlannedExperiment(f"{name}-{len(found) + 1}", revision, overrides, None))
    if not found:
        raise UserError(f"{file} has no line with settings, such as: -S lr=0.003 -S seed=1")
    return found


def check_overrides(overrides: Sequence[str]) -> None:
    """Check that params.yaml with these changes is valid, as `dvc exp run -S …` will check it.

    Args:
        overrides: `KEY=VALUE`, with a dotted key; `+` before it adds the key.

    Raises:
        UserError: It is not.
    """
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as temporary:
        changed = Path(temporary) / PARAMS_FILE
        shutil.copy(PARAMS_FILE, changed)
        try:
            apply_overrides(changed, list(overrides))
            load_params(changed)
        except InvalidArgumentError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"DVC rejects these settings: {reason}") from None
        except UserError as error:
            text = (
                str(error)
                .removesuffix(how_to_undo(changed))
                .replace(str(changed), str(PARAMS_FILE))
            )
            raise UserError(f"with these settings, {text}Correct that line.") from None


def queued_experiments() -> list[PlannedExperiment]:
    """Return the experiments of DVC's queue that no worker has started.

    Raises:
        UserError: There is none, or one was queued with changes of other files than params.yaml.
    """
    from dvc.repo import Repo

    found = []
    with Repo() as repo:
        for entry in repo.experiments.celery_queue.iter_queued():
            base, stash = entry.baseline_rev, entry.stash_rev
            name = entry.name or stash[:7]
            changed = output("git", "diff", "--name-only", base, stash, "--", ":!.dvc/tmp")
            if others := sorted(set(changed.splitlines()) - {str(PARAMS_FILE)}):
                raise UserError(
                    f"{name} was queued with changes of {', '.join(others)}, which the nodes would "
                    f"not see.\nCommit them, and queue it again."
                )
            params = output("git", "show", f"{stash}:{PARAMS_FILE}")
            found.append(PlannedExperiment(name, base, [], params + "\n"))
    if not found:
        raise UserError("The queue has no experiment: `dvc exp run --queue -S …` adds one.")
    return found


def refuse_changes() -> None:
    """Check that all changes of tracked files are committed; else raise `UserError`."""
    changed = output("git", "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        more = [f"… and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        listed = "\n".join([*changed[:SHOWN], *more])
        raise UserError(
            f"The jobs start from the last commit, without these changes:\n{listed}\n"
            f"Commit them, or put them aside with `git stash`."
        )


def refuse_names(names: Sequence[str]) -> None:
    """Check the names of new experiments.

    Raises:
        UserError: One is not allowed, or taken.
    """
    for name in names:
        if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
            raise UserError(
                f"An experiment would be named {name!r}; allowed: letters, digits, _ and -.\n"
                f"Give another --name."
            )
    there = output("git", "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    known = {ref.rsplit("/", 1)[-1] for ref in there} | unfinished()
    if taken := sorted(known & set(names)):
        raise UserError(
            f"These experiments already exist, wait or run: {', '.join(taken)}.\n"
            f"Give another --name, or remove them with `dvc exp remove`."
        )


def author() -> list[str]:
    """Return the user's name and e-mail address for git; raise `UserError` if one is not set."""
    try:
        return [output("git", "config", key) for key in ("user.name", "user.email")]
    except UserError:
        raise UserError(
            "git does not know who you are: set `git config --global user.name NAME` and "
            "`git config --global user.email ADDRESS`."
        ) from None


def remote_folders() -> dict[str, str]:
    """Return the absolute paths of DVC's remotes that are folders, by name.

    Raises:
        UserError: There is no default remote.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        remotes, default = repo.config["remote"], repo.config["core"].get("remote")
    if default is None:
        raise UserError(
            "With --origin, files travel through DVC's default remote, and there is none.\n"
            "Add one with `dvc remote add -d --local NAME URL`, then `dvc push`."
        )
    urls = {name: str(options["url"]) for name, options in remotes.items()}
    return {name: str(Path(url).resolve()) for name, url in urls.items() if "://" not in url}


def require_pushed(origin: str, revisions: set[str]) -> None:
    """Check that a repository's branches and tags have some commits; else raise `UserError`."""
    lines = output("git", "ls-remote", "--heads", "--tags", origin).splitlines()
    tips = {line.split()[0] for line in lines if not line.endswith("^{}")}
    missing = {revision for revision in revisions if not _below(revision, tips)}
    if not missing:
        return
    if unknown := [tip for tip in tips if not _succeeds("git", "cat-file", "-e", tip)]:
        # Others have pushed. Their commits come without a name, so nothing else changes here.
        output("git", "fetch", "--quiet", "--no-write-fetch-head", origin, *sorted(unknown))
    for revision in missing:
        if not _below(revision, tips):
            raise UserError(
                f"{origin} does not have the commit {revision[:7]}.\nRun `git push` first."
            )


def _below(revision: str, tips: set[str]) -> bool:
    """Return whether a commit is known to be one of the tips, or an ancestor of one."""
    return any(_succeeds("git", "merge-base", "--is-ancestor", revision, tip) for tip in tips)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
