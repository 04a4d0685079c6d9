"""What tests of the report's page in a browser share."""

import os
import re

import pytest
from playwright.sync_api import Page

OTHER = os.environ.get("CIFARPIPE_REPORT")
"""Path of another page than the one that is made for the tests, or None."""
own_page = pytest.mark.skipif(OTHER is not None, reason="another page is tested")
HOT = (2, 5)  # the only cell of a map with evidence
POSITION = 75  # of the image of that map


def count(page: Page) -> int:
    """Return how many images match, according to the page."""
    text = page.locator("#matches").inner_text()
    found = re.match(r"([\d,]+) test images? of ", text)
    assert found, text
    return int(found[1].replace(",", ""))


def wait_until(page: Page, holds: str) -> None:
    """Wait for a condition; the page's policy forbids Playwright's own way."""
    for _ in range(100):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(20)
    raise AssertionError(holds)
