"""A stream that looks like a terminal, on which progress bars are shown."""

import io
import sys

import pytest
from tqdm import tqdm


class Terminal(io.StringIO):
    """Records what a terminal would show."""

    def isatty(self) -> bool:
        return True


def replace_stderr(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    """Show progress bars on another stream, without tqdm's thread that refreshes idle bars."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
