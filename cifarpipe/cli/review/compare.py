"""`cifarpipe review`: compare the workspace with another revision."""

import sys
from pathlib import Path

from cifarpipe.cli.review.changes import compare_models
from cifarpipe.cli.review.comment import draw_montages, render_review
from cifarpipe.cli.review.snapshot import Revision, Workspace, read_snapshot
from cifarpipe.store.outputs import write_text


def write_review(base: str, out: Path) -> None:
    """Print the comparison, and write it to `out/review.md` with its figures.

    Args:
        base: Branch, tag, commit or experiment.
        out: Folder of the comment.

    Raises:
        UserError: There is no such revision, or one of the two has no metrics.
    """
    before, after = read_snapshot(Revision(base)), read_snapshot(Workspace())
    changes = compare_models(before, after)
    montages = draw_montages(changes, before, after, out)
    text = render_review(before, after, changes, montages)
    write_text(out / "review.md", text)
    print(text)
    print(f"written: {out / 'review.md'}", file=sys.stderr)
