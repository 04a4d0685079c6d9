"""The page in a real browser.

The variable `CIFARPIPE_REPORT` may hold the path of another page than the one made here; tests of
this one's own images are skipped then.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from cifarpipe.config.schema import Params
from cifarpipe.store.outputs import write_text
from tests.support.browsing import Visit, started_browser, visit
from tests.support.report_inputs import make_report
from tests.support.report_page import HOT, OTHER, POSITION


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, demo_params: Params) -> Path:
    if OTHER:
        return Path(OTHER).resolve()
    folder = tmp_path_factory.mktemp("report")
    report = make_report(demo_params, folder)
    last = report.results[0]  # in the page's order
    agnostic = replace(last.explanations, method="eigencam", class_specific=False)
    report.results[0] = replace(last, explanations=agnostic)
    for model in report.results:
        assert not model.is_correct[POSITION]
        model.predictions.loc[POSITION, "confidence"] = 0.9999  # the most confident error
        model.explanations.predicted[POSITION] = -1.0
        model.explanations.predicted[POSITION][HOT] = 1.0
        model.explanations.true[POSITION] = -2.0
    write_text(folder / "index.html", report.html())
    return folder / "index.html"


@pytest.fixture
def scheme() -> str:
    return "light"


@pytest.fixture
def opened(browser: Browser, file: Path, scheme: str) -> Iterator[Visit]:
    found = visit(browser, file, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    found.page.wait_for_selector("html[data-ready]")
    yield found
    found.assert_quiet()
    found.page.context.close()


@pytest.fixture
def page(opened: Visit) -> Page:
    return opened.page
