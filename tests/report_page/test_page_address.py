"""The view is in the page's address and in the browser's history."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.report_page import count, wait_until

pytestmark = pytest.mark.browser


def test_view_is_in_the_address(page: Page, file: Path) -> None:
    def address() -> str:
        return page.evaluate("decodeURIComponent(location.hash).replaceAll('+', ' ')")

    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).classes")
    last = page.locator("[name=model] option").last.get_attribute("value")
    page.select_option("[name=outcome]", "all")
    page.select_option("[name=model]", last)
    page.select_option("[name=true]", label=names[1])
    assert address() == f"#model={last}&outcome=all&true={names[1]}"
    number = count(page)
    page.fill("[name=low]", "0.5")
    confident = count(page)
    page.locator("#tiles button").first.click()
    title = page.locator("dialog h2")
    index = re.match(r"#(\d+),", title.inner_text())[1]
    assert address() == f"#model={last}&outcome=all&true={names[1]}&low=0.5&image={index}"
    seen = title.inner_text(), page.evaluate("location.hash")
    page.keyboard.press("Escape")
    assert "image" not in address()
    page.go_back()
    expect(page.locator("dialog")).to_be_visible()  # the image, which was left
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    assert count(page) == confident
    page.go_back()
    assert page.locator("[name=true]").input_value() == ""
    page.go_forward()
    assert count(page) in (number, confident)
    # Sent to a colleague, who opens it anew:
    sent = page.context.new_page()
    sent.goto(file.as_uri() + seen[1])
    expect(sent.locator("dialog")).to_be_visible()
    assert sent.locator("dialog h2").inner_text() == seen[0]
    assert sent.locator("[name=model]").input_value() == last


def test_address_of_an_image_alone_shows_it(page: Page) -> None:
    """Though the first model may predict it correctly, so that it is not among the errors."""
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    index = data["index"][data["shown"][-1]]
    page.evaluate(f"location.hash = 'image={index}'")
    expect(page.locator("dialog h2")).to_contain_text(f"#{index}, ")
    page.evaluate("location.hash = 'image=123456789'")
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.locator("#matches")).to_contain_text("does not contain test image #123456789")


def test_back_returns_to_the_count(page: Page) -> None:
    top = "Math.round(scrollY)"
    cell = page.locator(".confusion").last.locator("tbody button").first
    cell.scroll_into_view_if_needed()
    before = page.evaluate(top)
    cell.click()
    assert abs(page.evaluate(top) - before) > 500
    page.go_back()
    wait_until(page, f"Math.abs(scrollY - {before}) < 5")


def test_back_from_an_image_keeps_the_tiles_and_the_focus(page: Page) -> None:
    page.select_option("[name=outcome]", "all")
    page.locator("#more").click()
    tiles = page.locator("#tiles button")
    number = tiles.count()
    position = tiles.last.get_attribute("data-position")
    focused = "document.activeElement.dataset.position"
    tiles.last.click()
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    assert (tiles.count(), page.evaluate(focused)) == (number, position)
    page.go_forward()
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    assert (tiles.count(), page.evaluate(focused)) == (number, position)


def test_focus_goes_to_the_tile_of_an_image_from_the_address(page: Page) -> None:
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    position = data["shown"][0]
    page.evaluate(f"location.hash = 'outcome=all&order=index&image={data['index'][position]}'")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    wait_until(page, f"document.activeElement.dataset.position === '{position}'")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("model=nosuch", "Not in this page: model=nosuch. "),
        ("low=abc&true=nosuch", "Not in this page: low=abc, true=nosuch. "),
        ("image=", "does not contain test image #. "),
        ("image=1e1", "does not contain test image #1e1. "),
    ],
)
def test_wrong_address_is_reported_and_corrected(page: Page, address: str, text: str) -> None:
    page.evaluate(f"location.hash = '{address}'")
    expect(page.locator("#matches")).to_contain_text(text)
    wait_until(page, "location.hash === '#explore'")


def test_links_to_sections_keep_the_filters(page: Page) -> None:
    page.select_option("[name=outcome]", "all")
    whole = count(page)
    page.click("nav a[href='#curves']")
    page.select_option("[name=outcome]", "correct")
    page.click("nav a[href='#explore']")
    assert count(page) < whole
    page.go_back()
    page.go_back()
    assert page.evaluate("location.hash") == "#curves"
    assert count(page) == whole


def test_history_that_fails_once_works_again(page: Page) -> None:
    page.evaluate(
        "() => { const push = history.pushState.bind(history); history.pushState = () => {"
        "history.pushState = push; throw new Error('limit'); }; }"
    )
    for outcome in ("all", "correct"):
        page.select_option("[name=outcome]", outcome)
    wait_until(page, "location.hash === '#outcome=correct'")
