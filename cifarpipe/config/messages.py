"""Lists of names in messages, which are in no output."""

from collections.abc import Sequence

NAMED = 6  # in a list; of more, only these are named


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
