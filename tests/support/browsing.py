"""Open local pages in a real browser, and record their errors and requests."""

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
    """An open page, with its errors and requests."""

    page: Page
    file: Path
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """Check that there was no error, and no request but that of the page itself."""
        assert self.errors == []
        requested = [url for url in self.requests if not url.startswith(("data:", "blob:"))]
        assert requested == [self.file.as_uri()]


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Start Chromium if it is installed; otherwise skip the test."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def visit(browser: Browser, file: Path, **options: object) -> Visit:
    """Open a file in a new context with these options."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(10_000)
    found = Visit(page, file)
    page.on("console", lambda message: found.errors.append(message.text))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("dialog", lambda dialog: found.errors.append(dialog.message))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(file.as_uri())
    return found
