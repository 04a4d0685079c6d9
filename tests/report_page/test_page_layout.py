"""Tables, accessibility, and the page on screens, phones and paper."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browsing import Visit, visit

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_scheme(opened: Visit, scheme: str) -> None:
    background, text = (
        opened.page.evaluate(f"getComputedStyle(document.body).{what}")
        for what in ("backgroundColor", "color")
    )
    lightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, text)]
    assert (lightness[0] < lightness[1]) == (scheme == "dark")
    assert abs(lightness[0] - lightness[1]) > 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_opened_image_are_accessible(page: Page) -> None:
    """Contrast, names, roles, order of headings and the like: the rules of axe-core."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.locator("#tiles button").first.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_tables_are_sorted_by_mouse_and_keyboard(page: Page) -> None:
    table = page.locator("#leaderboard table")
    heads = table.locator("thead th").all_text_contents()
    for name in ("errors", "accuracy", "model"):
        column = heads.index(name)
        head = table.locator("thead th").nth(column)

        def values(column: int = column) -> list[str]:
            rows = table.locator("tbody tr").all()
            cells = [row.locator("th, td").nth(column) for row in rows]
            return [cell.get_attribute("data-value") or cell.inner_text() for cell in cells]

        def key(value: str) -> tuple[float, str]:
            return (float(value), "") if re.fullmatch(r"[\d.]+", value) else (0.0, value)

        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert values() == sorted(values(), key=key)
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert values() == sorted(values(), key=key, reverse=True)
        assert table.locator("[aria-sort]").count() == 1


def test_missing_values_are_sorted_last(page: Page) -> None:
    table = page.locator("#leaderboard table")
    table.locator("tbody tr").first.locator("td").nth(2).evaluate(
        "cell => { cell.dataset.value = ''; cell.textContent = '–'; }"
    )
    for _ in ("ascending", "descending"):
        table.locator("thead th").nth(3).locator("button").click()
        assert table.locator("tbody tr").last.locator("td").nth(2).inner_text() == "–"


def test_leaderboard_fits_the_window_until_all_metrics_are_shown(page: Page) -> None:
    table = page.locator("#leaderboard .scroll")
    too_wide = "e => e.scrollWidth - e.clientWidth"
    assert table.evaluate(too_wide) == 0
    expect(table.get_by_text("macro F1")).to_be_hidden()
    page.get_by_label("all metrics").check()
    expect(table.get_by_text("macro F1")).to_be_visible()


def test_controls_are_reachable_by_keyboard(page: Page) -> None:
    page.locator("[name=model]").focus()
    for name in ("outcome", "true", "predicted", "shared", "flag", "low", "high", "order", "map"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()


def test_only_what_scrolls_is_a_stop_of_the_tab_key(browser: Browser, file: Path) -> None:
    for width in (1280, 390):
        found = visit(browser, file, viewport={"width": width, "height": 800})
        found.page.wait_for_selector("html[data-ready]")
        for summary in found.page.locator("summary").all():
            summary.click()
        for part in found.page.locator(".scroll").all():
            scrolls, stops = part.evaluate("e => [e.scrollWidth > e.clientWidth, e.tabIndex === 0]")
            assert scrolls == stops, part.get_attribute("aria-label")
        found.page.context.close()


def test_confusion_count_has_a_label(page: Page) -> None:
    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).classes")
    cell = page.locator(".confusion tbody tr").nth(1).locator("td").nth(1).locator("button")
    images = "image" if cell.inner_text() == "1" else "images"
    label = f"{cell.inner_text()} {images}, true: {names[1]}, predicted: {names[1]}"
    assert cell.get_attribute("aria-label") == label
    for button in page.locator("button[data-query]:not(.link)").all():
        number, *what = button.get_attribute("aria-label").split(", ")
        assert number.split()[0] == button.inner_text()
        assert what


@pytest.mark.parametrize("width", [360, 700, 1000])
def test_no_card_of_an_image_is_cut_off(browser: Browser, file: Path, width: int) -> None:
    found = visit(browser, file, viewport={"width": width, "height": 800})
    found.page.wait_for_selector("html[data-ready]")
    found.page.locator("#tiles button").first.click()
    for figure in found.page.locator("dialog figure").all():
        box, card = (
            part.bounding_box() for part in (figure, figure.locator("xpath=ancestor::section"))
        )
        assert box["x"] >= card["x"] - 1
        assert box["x"] + box["width"] <= card["x"] + card["width"] + 1
        assert card["x"] + card["width"] <= width
    found.page.context.close()


def test_captions_fit_on_a_phone(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 390, "height": 800})
    for caption in found.page.locator("caption span").all():
        box = caption.bounding_box()
        assert box is None or box["x"] + box["width"] <= 390
    found.page.context.close()


def test_page_fits_on_a_phone(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 390, "height": 800})
    found.page.wait_for_selector("html[data-ready]")
    found.page.evaluate(  # as with a long name of a model
        "document.querySelectorAll('tbody th, main code, h2').forEach("
        "(e) => e.append('_of_a_very_long_name_such_as_people_give_to_experiments'))"
    )
    width = "document.documentElement.scrollWidth"
    assert found.page.evaluate(width) <= 390
    for table in found.page.locator("table:not(.confusion)").all():
        if box := table.locator("tbody th").first.bounding_box():
            assert box["width"] < 250
    found.page.locator("#tiles button").first.click()
    assert found.page.evaluate("document.querySelector('dialog').scrollWidth") <= 390
    assert found.errors == []
    found.page.context.close()


def test_tables_fit_on_paper(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 718, "height": 1000})  # A4
    found.page.wait_for_selector("html[data-ready]")
    found.page.emulate_media(media="print")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 718
    found.page.context.close()


def test_page_without_javascript_has_tables_and_note(browser: Browser, file: Path) -> None:
    found = visit(browser, file, java_script_enabled=False)
    expect(found.page.locator("noscript p")).to_contain_text("Without JavaScript")
    expect(found.page.locator("#leaderboard table")).to_be_visible()
    expect(found.page.locator("#explore")).to_be_hidden()
    found.page.context.close()
