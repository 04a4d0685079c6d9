"""Filters, galleries and counts choose images."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.report_page import count

pytestmark = pytest.mark.browser


def test_filters_narrow_the_images(page: Page) -> None:
    errors = count(page)
    first_row = page.locator("#leaderboard tbody tr").first
    assert int(first_row.locator("td button").inner_text().replace(",", "")) == errors
    page.select_option("[name=outcome]", "all")
    whole = count(page)
    page.select_option("[name=outcome]", "correct")
    assert count(page) == whole - errors
    by_class = 0
    for option in page.locator("[name=true] option").all()[1:]:
        page.select_option("[name=true]", option.get_attribute("value"))
        by_class += count(page)
    assert by_class == whole - errors
    page.select_option("[name=true]", "")
    page.fill("[name=low]", "0.5")
    confident = count(page)
    page.fill("[name=low]", "0")
    page.fill("[name=high]", "0.4999")
    assert count(page) == whole - errors - confident
    page.fill("[name=high]", "")  # an empty field means 1
    assert count(page) == whole - errors
    page.click("button[type=reset]")
    expect(page.locator("#matches")).to_contain_text(f"{errors:,} test image")


def test_every_model_can_be_selected(page: Page) -> None:
    for option in page.locator("[name=model] option").all():
        name = option.get_attribute("value")
        page.select_option("[name=model]", name)
        row = page.locator("#leaderboard tbody tr", has=page.locator(f"a[href='#model-{name}']"))
        assert int(row.locator("td button").inner_text().replace(",", "")) == count(page)
        for caption in page.locator("#tiles li:nth-child(-n + 5) button").all_inner_texts():
            words = " ".join(caption.split())
            pattern = r"(no positive evidence )?#\d+ true: .+ → predicted: .+ \([01]\.\d\d\)"
            assert re.fullmatch(pattern, words), words


def test_order_follows_confidence(page: Page) -> None:
    def confidences() -> list[float]:
        texts = page.locator("#tiles button").all_inner_texts()
        return [float(re.findall(r"\((\d\.\d+)\)", text)[-1]) for text in texts]

    page.select_option("[name=order]", "most-confident")
    assert confidences() == sorted(confidences(), reverse=True)
    page.select_option("[name=order]", "least-confident")
    assert confidences() == sorted(confidences())


def test_map_beside_each_image_can_be_switched(page: Page) -> None:
    first = page.locator("#tiles li").first
    page.select_option("[name=map]", "none")
    assert first.locator("canvas").count() == 1
    for which in ("true", "difference", "predicted"):
        page.select_option("[name=map]", which)
        assert first.locator(".images > *").count() == 2
    page.locator("button[data-query]").first.click()
    assert page.locator("[name=map]").input_value() == "predicted"


def test_gallery_opens_its_images(page: Page) -> None:
    model = page.locator("[name=model] option").nth(1).get_attribute("value")
    errors, correct = page.locator(f"#model-{model} .tiles").all()
    gallery = errors.locator("button")
    assert 0 < gallery.count() <= 20
    assert correct.locator(".wrong").count() == 0
    index = re.search(r"#\d+", gallery.nth(1).inner_text())[0]
    gallery.nth(1).click()
    expect(page.locator("dialog h2")).to_contain_text(f"{index}, ")
    page.keyboard.press("Escape")
    assert page.locator("[name=model]").input_value() == model
    assert count(page) >= gallery.count()


def test_labels_worth_checking_are_shown(page: Page) -> None:
    checks = page.locator("#check .checks")
    assert checks.count() == 3
    titles = page.locator("#check h3").all_inner_texts()
    for title, gallery in zip(titles, checks.all(), strict=True):
        number = int(title.split(": ")[1].replace(",", ""))
        tiles = gallery.locator("li:not(.soft)")
        assert tiles.count() <= number
        assert (tiles.count() == 0) == (number == 0)
    if page.locator("#check button[data-position]").count() == 0:
        return  # nothing was found
    gallery = checks.filter(has=page.locator("button")).first
    numbers = [
        tile.locator("small").inner_text().split(",")[0].removeprefix("test ")
        for tile in gallery.locator("button").all()
    ]
    page.select_option("[name=outcome]", "correct")
    gallery.locator("button").first.click()
    title = page.locator("dialog h2")
    expect(title).to_contain_text(f"{numbers[0]}, ")
    page.keyboard.press("Escape")
    assert page.locator("[name=flag]").input_value() != ""
    assert count(page) >= len(numbers)  # Previous and Next stay among them


def test_confusion_count_shows_its_images(page: Page) -> None:
    cell = page.locator(".confusion tbody tr td button").nth(1)
    number, query = cell.inner_text(), cell.evaluate("b => JSON.parse(b.dataset.query)")
    cell.click()
    assert count(page) == int(number.replace(",", ""))
    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).classes")
    for text in page.locator("#tiles button").all_inner_texts():
        assert f"true: {names[int(query['true'])]}" in text
        assert f"predicted: {names[int(query['predicted'])]}" in text
    # The focus moves there, so that a screen reader reads it.
    assert page.evaluate("document.activeElement.id") == "matches"


def test_every_count_equals_its_images(page: Page) -> None:
    """The page compares them itself, and reports a difference."""
    buttons = page.locator("button[data-query]")
    assert buttons.count() > 50
    page.evaluate("document.querySelectorAll('button[data-query]').forEach((b) => b.click())")
    expect(page.locator("#page-error")).to_be_hidden()
