"""Images and their maps, as tiles and opened."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from cifarpipe import report
from cifarpipe.explanations.upsampling import upsample
from cifarpipe.figures.layout import hundredths
from cifarpipe.figures.overlays import MAP_COLOURS
from cifarpipe.store.outputs import write_text
from tests.support.browsing import visit
from tests.support.report_inputs import make_images
from tests.support.report_page import HOT, POSITION, own_page

pytestmark = pytest.mark.browser

SCRIPT = Path(report.__file__).parent / "templates/script"


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


@own_page
def test_class_agnostic_map_is_shown_once(page: Page) -> None:
    page.locator("#tiles button").first.click()
    row = page.locator("#image-models section").last
    captions = row.locator(".strip").first.locator("figcaption").all_inner_texts()
    assert captions == ["any class: importance"]


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
    assert said == "labels of the nearest training images (pictures not in this page)"
    assert "× " in labels
    found.page.context.close()


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
    inside = "e => e.getBoundingClientRect().right <= e.closest('li').getBoundingClientRect().right"
    assert maps.evaluate(inside)


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


def definition(file: str, start: str, end: str) -> str:
    """Return a piece of the page's script, from `start` to the next `end`."""
    text = (SCRIPT / file).read_text(encoding="utf-8")
    first = text.index(start)
    return text[first : text.index(end, first) + len(end)]


def test_probabilities_read_as_in_the_png_files(page: Page) -> None:
    steps = 10_001
    line = definition("data.js", "const probabilityText", "\n")
    call = (
        f"() => {{ {line} return Array.from({{length: {steps}}}, (_, i) => probabilityText(i)); }}"
    )
    found = page.evaluate(call)
    assert found == [hundredths(step / (steps - 1)) for step in range(steps)]


def test_maps_are_upsampled_as_for_the_metrics(page: Page) -> None:
    maps = np.random.default_rng(0).normal(size=(1, 8, 4)).astype(np.float32)
    side = 40
    function = definition("drawing.js", "function upsample", "\n}\n")
    call = f"([map, grid]) => {{ {function} return Array.from(upsample(map, grid, {side})); }}"
    found = page.evaluate(call, [maps.ravel().tolist(), [8, 4]])
    np.testing.assert_allclose(np.reshape(found, (side, side)), upsample(maps, side)[0], atol=1e-5)
