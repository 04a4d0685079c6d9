"""The page in a real browser: what people do with it, in both colour schemes, without a fault.

`CIFARPIPE_REPORT` names another page to try than the one made here; what is known of this one's
pictures alone is left out then.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from cifarpipe.config.schema import Params
from cifarpipe.figures.maps import MAP_COLOURS
from cifarpipe.store.outputs import write_text
from tests.support.browsing import Visit, started_browser, visit
from tests.support.report_setting import make_images, make_report

OTHER = os.environ.get("CIFARPIPE_REPORT")
pytestmark = pytest.mark.browser
own_page = pytest.mark.skipif(OTHER is not None, reason="another page is tried")
HOT = (2, 5)  # cell of the map that alone holds evidence
PLACE = 75  # of the image whose map that is


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
    report.results[0] = replace(report.results[0], method="eigencam")  # the last one
    for model in report.results:  # the surest of all its errors
        assert not model.right[PLACE]
        model.predictions.loc[PLACE, "confidence"] = 0.9999
        model.predicted_maps[PLACE] = -1.0
        model.predicted_maps[PLACE][HOT] = 1.0
        model.true_maps[PLACE] = -2.0
    write_text(folder / "index.html", report.html())
    return folder / "index.html"


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Iterator[Visit]:
    found = visit(
        browser, file, color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    found.page.wait_for_selector("html[data-ready]")
    yield found
    found.assert_quiet()
    found.page.context.close()


@pytest.fixture
def page(opened: Visit) -> Page:
    return opened.page


def count(page: Page) -> int:
    """Return how many images match, as the page says."""
    said = page.locator("#matches").inner_text()
    found = re.match(r"([\d,]+) test images? of ", said)
    assert found, said
    return int(found[1].replace(",", ""))


def test_colours_follow_the_scheme(opened: Visit, request: pytest.FixtureRequest) -> None:
    dark = "[dark]" in request.node.name
    background, text = (
        opened.page.evaluate(f"getComputedStyle(document.body).{what}")
        for what in ("backgroundColor", "color")
    )
    lightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, text)]
    assert (lightness[0] < lightness[1]) == dark
    assert abs(lightness[0] - lightness[1]) > 400


def test_filters_narrow_what_is_shown(page: Page) -> None:
    errors = count(page)
    first_row = page.locator("#leaderboard tbody tr").first
    assert int(first_row.locator("td button").inner_text().replace(",", "")) == errors
    page.select_option("[name=answers]", "all")
    whole = count(page)
    page.select_option("[name=answers]", "correct")
    assert count(page) == whole - errors
    by_class = 0
    for option in page.locator("[name=true] option").all()[1:]:
        page.select_option("[name=true]", option.get_attribute("value"))
        by_class += count(page)
    assert by_class == whole - errors
    page.select_option("[name=true]", "")
    page.fill("[name=low]", "0.5")
    sure = count(page)
    page.fill("[name=low]", "0")
    page.fill("[name=high]", "0.4999")
    assert count(page) == whole - errors - sure
    page.fill("[name=high]", "")  # as if it were 1
    assert count(page) == whole - errors
    page.click("button[type=reset]")
    expect(page.locator("#matches")).to_contain_text(f"{errors:,} test image")


def test_every_model_can_be_chosen_and_tiles_say_what_they_show(page: Page) -> None:
    for option in page.locator("[name=model] option").all():
        name = option.get_attribute("value")
        page.select_option("[name=model]", name)
        row = page.locator("#leaderboard tbody tr", has=page.locator(f"a[href='#model-{name}']"))
        assert int(row.locator("td button").inner_text().replace(",", "")) == count(page)
        for caption in page.locator("#tiles li:nth-child(-n + 5) button").all_inner_texts():
            words = " ".join(caption.split())
            assert re.fullmatch(r"#\d+ true: .+ → predicted: .+ \([01]\.\d\d\)", words), words


def test_order_is_by_confidence(page: Page) -> None:
    def confidences() -> list[float]:
        texts = page.locator("#tiles button").all_inner_texts()
        return [float(re.findall(r"\((\d\.\d+)\)", text)[-1]) for text in texts]

    page.select_option("[name=order]", "surest")
    assert confidences() == sorted(confidences(), reverse=True)
    page.select_option("[name=order]", "unsurest")
    assert confidences() == sorted(confidences())


def test_tables_are_sorted_by_mouse_and_keyboard(page: Page) -> None:
    table = page.locator("#leaderboard table")
    heads = table.locator("thead th").all_inner_texts()
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


def test_a_confusion_opens_the_images_behind_it(page: Page) -> None:
    cell = page.locator(".confusion tbody tr td button").nth(1)
    number, wanted = cell.inner_text(), cell.evaluate("b => JSON.parse(b.dataset.ask)")
    cell.click()
    assert count(page) == int(number.replace(",", ""))
    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).classes")
    for text in page.locator("#tiles button").all_inner_texts():
        assert f"true: {names[int(wanted['true'])]}" in text
        assert f"predicted: {names[int(wanted['predicted'])]}" in text
    assert (
        page.evaluate("document.activeElement.id") == "matches"
    )  # read out, and Tab goes on there


def test_every_count_on_the_page_is_that_of_its_images(page: Page) -> None:
    """The page compares them itself, and complains."""
    buttons = page.locator("button[data-ask]")
    assert buttons.count() > 50
    page.evaluate("document.querySelectorAll('button[data-ask]').forEach((b) => b.click())")
    expect(page.locator("#fault")).to_be_hidden()


def test_an_image_is_shown_with_every_models_answer_and_maps(page: Page) -> None:
    models = page.locator("[name=model] option").count()
    page.locator("#tiles button").first.click()
    dialog = page.locator("dialog")
    expect(dialog).to_be_visible()
    assert dialog.locator("#image-models section").count() == models
    assert dialog.locator("canvas[role=img]").count() >= models
    for canvas in dialog.locator("canvas").all():
        shades = canvas.evaluate(
            "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
        )
        assert shades > 1 or canvas.get_attribute("aria-label") is None
    title = dialog.locator("h2").inner_text()
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text() != title
    page.keyboard.press("ArrowLeft")
    assert dialog.locator("h2").inner_text() == title
    assert dialog.locator("#previous").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    focused = page.evaluate("document.activeElement.closest('#tiles') !== null")
    assert focused  # where it was


def test_all_can_be_reached_by_keyboard(page: Page) -> None:
    page.locator("[name=model]").focus()
    for name in ("answers", "true", "predicted", "shared", "low", "high", "order"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()


def test_keys_still_work_at_the_last_image(page: Page) -> None:
    """A button that is disabled while it has the focus takes the keyboard with it."""
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    page.locator("#tiles button").nth(-2).click()
    title = page.locator("dialog h2")
    first = title.inner_text()
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert title.inner_text() != first
    assert page.locator("#next").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")  # nothing follows
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == first


def test_a_confusion_says_what_it_counts(page: Page) -> None:
    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).classes")
    cell = page.locator(".confusion tbody tr").nth(1).locator("td").nth(1).locator("button")
    images = "image" if cell.inner_text() == "1" else "images"
    said = f"{cell.inner_text()} {images}, true: {names[1]}, predicted: {names[1]}"
    assert cell.get_attribute("aria-label") == said


@own_page
def test_a_map_of_no_class_is_shown_once(page: Page) -> None:
    page.locator("#tiles button").first.click()
    captions = page.locator("#image-models section").last.locator("figcaption").all_inner_texts()
    assert captions == ["any class: what mattered"]


def test_a_caption_stays_in_sight_on_a_phone(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 390, "height": 800})
    for said in found.page.locator("caption span").all():
        box = said.bounding_box()
        assert box is None or box["x"] + box["width"] <= 390
    found.page.context.close()


@own_page
def test_pictures_are_the_original_pixels(page: Page) -> None:
    page.select_option("[name=answers]", "all")
    images = make_images(80)
    for button in page.locator("#tiles button").all()[:12]:
        place = int(button.get_attribute("data-position"))
        pixel = button.locator("canvas").evaluate(
            "c => [c.width, ...c.getContext('2d').getImageData(7, 9, 1, 1).data]"
        )
        assert pixel == [32, *images[place][9, 7].tolist(), 255]


@own_page
def test_a_map_lies_where_it_belongs_in_its_colour(page: Page) -> None:
    import matplotlib as mpl

    tile = page.locator(f"#tiles button[data-position='{PLACE}']")
    tile.click()
    row = page.locator("#image-models section").first
    assert row.locator(".none").inner_text() == "no positive evidence"  # for the true class
    captions = row.locator("figcaption").all_inner_texts()
    assert [caption.split(":")[0] for caption in captions] == [
        "predicted",
        "true",
        "predicted − true",
    ]
    pixels = row.locator("canvas").first.evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 128, 128).data]"
    )
    shown = np.array(pixels).reshape(128, 128, 4)[..., :3].astype(float)
    grey = make_images(80)[PLACE][0, 0].mean()
    coloured = np.abs(shown - grey).max(axis=2) > 3
    rows, columns = np.nonzero(coloured)
    cell = 128 // 8
    middle = ((HOT[0] + 0.5) * cell, (HOT[1] + 0.5) * cell)
    assert (rows.mean(), columns.mean()) == pytest.approx(middle, abs=1)
    assert np.ptp(rows) < 2 * cell
    # In full: what speaks against the true class is twice as strong, and not on this scale.
    away = 0.5 / cell  # of the pixel from the cell's middle; around it the map is at -1
    strength = 2 * (1 - away) ** 2 - 1
    colour = np.array(mpl.colormaps[MAP_COLOURS](strength)[:3]) * 255
    opacity = 0.6 * strength
    expected = opacity * colour + (1 - opacity) * grey
    hottest = shown[int(middle[0]), int(middle[1])]
    assert hottest == pytest.approx(expected, abs=12)


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 390, "height": 800})
    found.page.wait_for_selector("html[data-ready]")
    width = "document.documentElement.scrollWidth"
    assert found.page.evaluate(width) <= 390
    found.page.locator("#tiles button").first.click()
    assert found.page.evaluate("document.querySelector('dialog').scrollWidth") <= 390
    assert found.faults == []
    found.page.context.close()


def test_without_scripts_the_tables_are_there_and_say_what_is_not(
    browser: Browser, file: Path
) -> None:
    found = visit(browser, file, java_script_enabled=False)
    expect(found.page.locator("noscript p")).to_contain_text("Without JavaScript")
    expect(found.page.locator("#leaderboard table")).to_be_visible()
    expect(found.page.locator("#explore")).to_be_hidden()
    found.page.context.close()


@own_page
def test_a_page_that_contradicts_itself_says_so(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    text = file.read_text(encoding="utf-8")
    changed = re.sub(r'("errors": )(\d+)', lambda m: f"{m[1]}{int(m[2]) + 1}", text, count=1)
    assert changed != text
    write_text(tmp_path / "index.html", changed)
    found = visit(browser, tmp_path / "index.html")
    expect(found.page.locator("#fault")).to_contain_text("errors do not add up")
    assert found.faults
    found.page.context.close()
