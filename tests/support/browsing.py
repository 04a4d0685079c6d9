"""A real browser for pages that are files, and what they complained of or asked the network for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Visit:
    """A page that is open, and what it complained of or asked the network for."""

    page: Page
    file: Path
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """Check that it complained of nothing, and asked for nothing but itself."""
        assert self.faults == []
        asked = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert asked == [self.file.as_uri()]


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Start the browser of this machine; without one, skip the test."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def visit(browser: Browser, file: Path, **options: object) -> Visit:
    """Open a file."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(10_000)
    found = Visit(page, file)
    page.on("console", lambda message: found.faults.append(message.text))
    page.on("pageerror", lambda error: found.faults.append(str(error)))
    page.on("dialog", lambda dialog: found.faults.append(dialog.message))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(file.as_uri())
    return found
