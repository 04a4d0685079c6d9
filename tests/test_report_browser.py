"""The page in a real browser.

The variable `CIFARPIPE_REPORT` may hold the path of another page than the one made here; tests of
this one's own images are skipped then.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from cifarpipe.config.schema import Params
from cifarpipe.figures.overlays import MAP_COLOURS
from cifarpipe.store.outputs import write_text
from tests.support.browsing import Visit, started_browser, visit
from tests.support.report_inputs import make_images, make_report

OTHER = os.environ.get("CIFARPIPE_REPORT")
pytestmark = pytest.mark.browser
own_page = pytest.mark.skipif(OTHER is not None, reason="another page is tested")
HOT = (2, 5)  # the only cell of a map with evidence
POSITION = 75  # of the image of that map


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
    agnostic = replace(last.explanations, method="eigencam")
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


def test_leaderboard_fits_the_window_until_all_metrics_are_shown(page: Page) -> None:
    table = page.locator("#leaderboard .scroll")
    too_wide = "e => e.scrollWidth - e.clientWidth"
    assert table.evaluate(too_wide) == 0
    expect(table.get_by_text("macro F1")).to_be_hidden()
    page.get_by_label("all metrics").check()
    expect(table.get_by_text("macro F1")).to_be_visible()


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


def test_map_beside_each_image_can_be_switched(page: Page) -> None:
    first = page.locator("#tiles li").first
    page.select_option("[name=map]", "none")
    assert first.locator("canvas").count() == 1
    for which in ("true", "difference", "predicted"):
        page.select_option("[name=map]", which)
        assert first.locator(".images > *").count() == 2
    page.locator("button[data-query]").first.click()
    assert page.locator("[name=map]").input_value() == "predicted"


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


def test_image_is_shown_with_maps_of_all_models(page: Page) -> None:
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
    dialog.dispatch_event("keydown", {"key": "ArrowRight", "altKey": True})  # Forward
    assert dialog.locator("h2").inner_text() == title
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    focused = page.evaluate("document.activeElement.closest('#tiles') !== null")
    assert focused  # as before


def test_controls_are_reachable_by_keyboard(page: Page) -> None:
    page.locator("[name=model]").focus()
    for name in ("outcome", "true", "predicted", "shared", "flag", "low", "high", "order", "map"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()


def test_keys_work_at_the_last_image(page: Page) -> None:
    """A button that is disabled while it has the focus loses it, and with it the arrow keys."""
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    page.locator("#tiles button").nth(-2).click()
    title = page.locator("dialog h2")
    first = title.inner_text()
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert title.inner_text() != first
    assert page.locator("#next").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")  # there is no next image
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == first


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


def test_missing_values_are_sorted_last(page: Page) -> None:
    table = page.locator("#leaderboard table")
    table.locator("tbody tr").first.locator("td").nth(2).evaluate(
        "cell => { cell.dataset.value = ''; cell.textContent = '–'; }"
    )
    for _ in ("ascending", "descending"):
        table.locator("thead th").nth(3).locator("button").click()
        assert table.locator("tbody tr").last.locator("td").nth(2).inner_text() == "–"


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


@own_page
def test_class_agnostic_map_is_shown_once(page: Page) -> None:
    page.locator("#tiles button").first.click()
    row = page.locator("#image-models section").last
    captions = row.locator(".strip").first.locator("figcaption").all_inner_texts()
    assert captions == ["any class: importance"]


def test_captions_fit_on_a_phone(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 390, "height": 800})
    for caption in found.page.locator("caption span").all():
        box = caption.bounding_box()
        assert box is None or box["x"] + box["width"] <= 390
    found.page.context.close()


def test_opened_image_has_its_nearest_training_images(page: Page) -> None:
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    page.locator("#tiles button").first.click()
    strip = page.locator("#image-models section").first.locator(".nearest")
    captions = strip.locator("figcaption").all_inner_texts()
    assert len(captions) == data["models"][0]["neighbours"]
    assert set(captions) <= set(data["classes"])
    true = page.locator("dialog h2").inner_text().split(", true: ")[1]
    assert strip.locator("figcaption.correct").all_inner_texts() == [
        caption for caption in captions if caption == true
    ]
    assert "cosine similarity 0." in strip.locator("figure").first.get_attribute("title")


@own_page
def test_opened_image_has_labels_of_images_without_pictures(
    browser: Browser, file: Path, tmp_path: Path
) -> None:
    """As on a page that is too small for the pictures."""
    text = file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.+?)</script>', text)[1])
    model = data["models"][0]
    absent = base64.b64encode(b"\xff\xff" * len(base64.b64decode(model["nearestLabels"]))).decode()
    write_text(tmp_path / "index.html", text.replace(model["nearest"], absent))
    found = visit(browser, tmp_path / "index.html")
    found.page.wait_for_selector("html[data-ready]")
    found.page.locator("#tiles button").first.click()
    note = found.page.locator("#image-models section").first.locator(".nearest").inner_text()
    said, labels = note.split(": ", 1)
    assert said == "labels of the nearest training images, which are not in this page"
    assert "× " in labels
    found.page.context.close()


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


@own_page
def test_images_have_the_original_pixels(page: Page) -> None:
    page.select_option("[name=outcome]", "all")
    images = make_images(80)
    for button in page.locator("#tiles button").all()[:12]:
        position = int(button.get_attribute("data-position"))
        pixel = button.locator("canvas").first.evaluate(
            "c => [c.width, ...c.getContext('2d').getImageData(7, 9, 1, 1).data]"
        )
        assert pixel == [32, *images[position][9, 7].tolist(), 255]


@own_page
def test_tile_shows_the_map_of_its_image(page: Page) -> None:
    maps = page.locator(f"#tiles button[data-position='{POSITION}'] .images > :nth-child(2)")
    side = maps.evaluate("c => c.width")
    pixels = maps.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.width).data]")
    shown = np.array(pixels).reshape(side, side, 4)[..., :3].astype(float)
    grey = make_images(80)[POSITION][0, 0].mean()
    places = np.argwhere(np.abs(shown - grey).max(axis=2) > 3)
    assert places.mean(axis=0) == pytest.approx((np.array(HOT) + 0.5) * side / 8, abs=1)
    page.select_option("[name=map]", "true")
    assert maps.inner_text() == "no positive evidence"


@own_page
def test_map_has_expected_position_and_colour(page: Page) -> None:
    import matplotlib as mpl

    tile = page.locator(f"#tiles button[data-position='{POSITION}']")
    tile.click()
    row = page.locator("#image-models section").first
    assert row.locator(".none").inner_text() == "no positive evidence"  # for the true class
    captions = row.locator(".strip").first.locator("figcaption").all_inner_texts()
    assert [caption.split(":")[0] for caption in captions] == [
        "predicted",
        "true",
        "predicted − true",
    ]
    pixels = row.locator("canvas").first.evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 128, 128).data]"
    )
    shown = np.array(pixels).reshape(128, 128, 4)[..., :3].astype(float)
    grey = make_images(80)[POSITION][0, 0].mean()
    coloured = np.abs(shown - grey).max(axis=2) > 3
    rows, columns = np.nonzero(coloured)
    cell = 128 // 8
    centre = ((HOT[0] + 0.5) * cell, (HOT[1] + 0.5) * cell)
    assert (rows.mean(), columns.mean()) == pytest.approx(centre, abs=1)
    assert np.ptp(rows) < 2 * cell
    # At full strength: negative evidence, though twice as strong, does not affect the scale.
    away = 0.5 / cell  # of the pixel from the cell's centre; around the cell the map is -1
    strength = 2 * (1 - away) ** 2 - 1
    colour = np.array(mpl.colormaps[MAP_COLOURS](strength)[:3]) * 255
    opacity = 0.6 * strength
    expected = opacity * colour + (1 - opacity) * grey
    hottest = shown[int(centre[0]), int(centre[1])]
    assert hottest == pytest.approx(expected, abs=12)


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


def test_page_without_javascript_has_tables_and_note(browser: Browser, file: Path) -> None:
    found = visit(browser, file, java_script_enabled=False)
    expect(found.page.locator("noscript p")).to_contain_text("Without JavaScript")
    expect(found.page.locator("#leaderboard table")).to_be_visible()
    expect(found.page.locator("#explore")).to_be_hidden()
    found.page.context.close()


def test_tables_fit_on_paper(browser: Browser, file: Path) -> None:
    found = visit(browser, file, viewport={"width": 718, "height": 1000})  # A4
    found.page.wait_for_selector("html[data-ready]")
    found.page.emulate_media(media="print")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 718
    found.page.context.close()


@own_page
def test_damaged_pictures_are_reported(browser: Browser, file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    write_text(
        tmp_path / "index.html",
        text.replace("data:image/webp;base64,UklGR", "data:image/webp;base64,AAAA"),
    )
    found = visit(browser, tmp_path / "index.html")
    expect(found.page.locator("#page-error")).to_contain_text("images of this page can't be read")
    found.page.context.close()


@own_page
def test_inconsistent_page_reports_an_error(browser: Browser, file: Path, tmp_path: Path) -> None:
    text = file.read_text(encoding="utf-8")
    changed = re.sub(r'("errors": )(\d+)', lambda m: f"{m[1]}{int(m[2]) + 1}", text, count=1)
    assert changed != text
    write_text(tmp_path / "index.html", changed)
    found = visit(browser, tmp_path / "index.html")
    expect(found.page.locator("#page-error")).to_contain_text("errors do not add up")
    assert found.errors
    found.page.context.close()
