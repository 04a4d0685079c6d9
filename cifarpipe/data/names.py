"""Names of files: which are ignored, which are text, and how to write those that are not."""

import unicodedata
from pathlib import Path

NOT_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, lone surrogates, line ends
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}  # in any case


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is not an image: hidden, or made by a system."""
    return name.startswith(".") or name.lower() in IGNORED


def is_text(name: str) -> bool:
    """Return whether a name has neither control characters nor bytes that are not UTF-8."""
    return not any(_is_odd(letter) for letter in name)


def escaped(path: Path) -> str:
    """Return a path as text, with a backslash escape for each character that `is_text` refuses."""
    return "".join(
        letter.encode("unicode_escape").decode() if _is_odd(letter) else letter
        for letter in str(path)
    )


def _is_odd(letter: str) -> bool:
    return unicodedata.category(letter) in NOT_TEXT
