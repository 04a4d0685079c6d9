"""The page: right, escaped, readable by all, and with nothing fetched from anywhere."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cifarpipe.config.schema import Params
from cifarpipe.report.pages import MOST_BYTES, data_uri
from cifarpipe.report.results import leaderboard, verdict
from tests.support.report_setting import (
    CLASSES,
    SCRIPT,
    TITLE,
    Page,
    Report,
    make_dataset,
    make_picture,
    make_report,
    make_results,
    results_of,
)


@pytest.fixture
def report(demo_params: Params, tmp_path: Path) -> Report:
    return make_report(demo_params, tmp_path)


@pytest.fixture
def page(report: Report) -> Page:
    return Page(report.html())


# Safe and readable.


def test_nothing_is_fetched(report: Report, page: Page) -> None:
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = element["attrs"].get(name)
            assert value is None or re.match(r"data:image/webp;base64,|#", value), value
    assert not page.all("link", "iframe", "object", "embed", "base", "video")
    assert not [e for e in page.all("script", "form") if {"src", "action"} & set(e["attrs"])]
    (style,) = page.all("style")
    assert not re.search(r"url\(|@import|https?:", style["text"])
    # As text, a class may name an address; as anything else none may stand in the file.
    assert "http" not in report.html().replace("http-equiv", "").replace("http://evil", "")


def test_the_browser_is_told_to_fetch_nothing(page: Page) -> None:
    (policy,) = [
        element["attrs"]["content"]
        for element in page.all("meta")
        if element["attrs"].get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    data, script = page.all("script")
    assert data["attrs"] == {"type": "application/json", "id": "data"}
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_names_from_outside_are_text_and_nothing_else(report: Report, page: Page) -> None:
    html = report.html()
    assert SCRIPT not in html
    assert "<b " not in html
    assert not page.all("b")
    assert "alert(1)" not in page.all("script")[1]["text"]
    assert json.loads(page.all("script")[0]["text"])["classes"] == CLASSES
    assert not [name for e in page.elements for name in e["attrs"] if name.startswith("on")]
    (heading,) = page.all("h1")
    assert heading["text"] == page.all("title")[0]["text"] == TITLE
    assert page.table("Each class")[1][0] == SCRIPT
    assert page.table("Test images, true class by row")[0][1:] == CLASSES
    (cell,) = [e for e in page.all("p") if e["text"].startswith("Most often")][:1]
    assert 'a "quoted" | piped' in cell["text"]
    assert "with <changes>" in page.all("footer")[0]["text"]


def test_links_lead_to_places_that_are_there_once(page: Page) -> None:
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    links = [element["attrs"]["href"] for element in page.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    sections = {e["attrs"]["id"] for e in page.all("section")}
    assert sections == {link.removeprefix("#") for link in links}
    script = page.all("script")[1]["text"]
    assert set(re.findall(r'getElementById\("([^"]+)"\)', script)) <= set(ids)


def test_every_picture_says_what_it_shows(report: Report, page: Page) -> None:
    alts = [picture["attrs"]["alt"] for picture in page.all("img")]
    assert len(alts) == 2
    alts += [svg["attrs"]["aria-label"] for svg in page.all("svg")]
    assert len(alts) == 2 + len(report.results)
    assert all(len(alt.split()) >= 4 for alt in alts)
    bins = report.results[1].calibration.iloc[-1]
    assert f"accuracy {bins.accuracy:.2f}, {bins.images:.0f} images" in alts[2]


def test_every_table_has_a_caption_and_every_head_a_scope(page: Page) -> None:
    tables = page.all("table")
    assert len(tables) == 1 + 3 + 1 + 4 * 3  # leaderboard, comparison, explanations, models
    for table in tables:
        assert table["children"][0]["tag"] == "caption"
        assert table["children"][0]["text"].strip()
    for head in page.all("th"):
        row = head["parent"]
        expected = "col" if row["parent"]["tag"] == "thead" else "row"
        assert head["attrs"]["scope"] == expected
        assert head["text"].strip()
    for section in page.all("thead", "tbody"):
        widths = {len(row["children"]) for row in section["parent"]["children"][1]["children"]}
        assert {len(row["children"]) for row in section["children"]} == widths


def test_the_page_says_its_language_and_suits_dark_rooms(page: Page) -> None:
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    assert "prefers-color-scheme: dark" in page.all("style")[0]["text"]
    for region in page.elements:
        if region["attrs"].get("tabindex") == "0":  # scrolled by keyboard, so it needs a name
            assert region["attrs"]["aria-label"]


# Right.


def test_the_leaderboard_is_shown(report: Report, page: Page) -> None:
    board = leaderboard(report.results)
    rows = page.table("On the 80 test images")
    assert [row[0] for row in rows[1:]] == board.model.tolist()
    best = dict(zip(rows[0], rows[1], strict=True))
    assert best["accuracy"] == "90.00%"
    assert best["errors"] == "8"
    assert best["validation"] == "50.00%"
    assert best["epoch kept"] == "2 of 3"
    assert best["parameters"] == "1,234,567"
    assert best["MACs"] == "2.5 M"
    headings = [h["text"] for h in page.all("h2")]
    assert headings[5:8] == board.model.tolist()


def asked(page: Page) -> list[tuple[int, dict[str, str]]]:
    """Return what every button asks the explorer for, with how many images it promises."""
    buttons = [b["attrs"] for b in page.all("button") if "data-ask" in b["attrs"]]
    return [(int(b["data-matches"]), json.loads(b["data-ask"])) for b in buttons]


def test_every_number_of_images_asks_for_as_many(report: Report, page: Page) -> None:
    """The filter of the page's script, written out once more in pandas."""
    names = [model.name for model in report.results]
    wrong = sum((~model.right).astype(int) for model in report.results)
    found = asked(page)
    assert len(found) > 25
    for count, values in found:
        model = report.results[names.index(values["model"])]
        table = model.predictions.assign(wrong=wrong)
        keep = {
            "all": table.true == table.true,
            "errors": table.true != table.predicted,
            "correct": table.true == table.predicted,
            "alone": (table.true != table.predicted) & (table.wrong == 1),
            "chosen-errors": table["index"].isin(model.misclassified["index"]),
            "chosen-correct": table["index"].isin(model.correct["index"]),
        }[values["answers"]]
        for side in ("true", "predicted"):
            if side in values:
                keep &= table[side] == CLASSES[int(values[side])]
        if "shared" in values:
            keep &= table.wrong == int(values["shared"])
        assert keep.sum() == count, values


def test_explanations_are_judged_in_words_and_figures(report: Report, page: Page) -> None:
    text = page.all("main")[0]["text"]
    assert text.count("better than random maps and than always looking at the middle") >= 1
    row = page.table("How well each model")[1]
    assert row[:4] == ["high", "layercam", "8 × 8", "0.40"]
    assert "0.40 0.30 – 0.50" in row
    report.results[0].gradcam.update(
        pointing_game=0.75, pointing_game_low=0.7, pointing_game_high=0.8,
        pointing_game_centre=0.5, pointing_game_random=0.25, pointing_game_images=123,
        energy_inside=0.6, energy_inside_low=0.5, energy_inside_high=0.7,
    )  # fmt: skip
    for model in report.results[1:]:
        model.gradcam.update(report.results[0].gradcam)
    row = Page(report.html()).table("How well each model")[1]
    assert row[3:6] == ["0.75 0.70 – 0.80", "0.50", "0.60 0.50 – 0.70"]
    del report.results[1].gradcam["pointing_game"]  # the best one is never right, say
    assert Page(report.html()).table("How well each model")[1][3] == "–"


def test_deletion_and_insertion_stand_beside_those_of_maps_that_know_nothing(page: Page) -> None:
    head, row, *_ = page.table("How well each model")
    shown = dict(zip(head, row, strict=True))
    assert shown["deletion"] == "0.20 0.31, 0.32"
    assert shown["insertion"] == "0.80 0.41, 0.42"


def test_the_device_stands_with_each_model(page: Page) -> None:
    assert page.all("main")[0]["text"].count("trained on GPU of a test, bf16") == 3


def test_figures_that_were_not_measured_are_dashes(report: Report) -> None:
    for model in report.results:
        model.gradcam.clear()
        model.gradcam.update(explained=80, without_evidence_errors=0, without_evidence_correct=0)
    page = Page(report.html())
    assert page.table("How well each model")[1][3:] == ["–"] * 6
    assert "on the object" not in page.table("How well each model")[0]
    assert "not put to the test" in page.all("main")[0]["text"]


def test_maps_without_evidence_are_told(report: Report, page: Page) -> None:
    text = page.all("main")[0]["text"]
    assert text.count("hold no evidence for the class predicted in 1 errors and 0 correct") == 3
    for model in report.results:
        model.gradcam["without_evidence_errors"] = 0
    assert "hold no evidence" not in report.html()


def test_the_page_stays_small_by_showing_fewer_pictures(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "80 of the 80 test images have a picture" in report.html()
    module = "cifarpipe.report.pages.MOST_BYTES"
    whole = len(report.html().encode())
    monkeypatch.setattr(module, whole - 5_000)
    page = report.html()
    assert len(page.encode()) <= whole - 5_000
    shown = json.loads(Page(page).all("script")[0]["text"])["shown"]
    assert 20 < len(shown) < 80
    assert f"{len(shown)} of the 80 test images have a picture in this page: those that" in page
    monkeypatch.setattr(module, 10)  # nothing fits: still a page, without pictures
    assert "0 of the 80 test images have a picture" in report.html()


def test_ten_models_on_many_images_of_noise_fit(report: Report) -> None:
    """Noise is what compresses worst; a test split of CIFAR-10's size and ten models."""
    n = 10_000
    report.dataset = make_dataset(CLASSES, test=n)
    report.results = [
        make_results(report.folder, f"m{i}", n=n, right=0.9 - i / 50, seed=i) for i in range(10)
    ]
    noise = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    page = report.html(noise)
    assert len(page.encode()) <= MOST_BYTES < 3_000_000
    shown = json.loads(Page(page).all("script")[0]["text"])["shown"]
    assert len(shown) > 150


def test_confusions_stand_where_they_belong(report: Report, page: Page) -> None:
    rows = page.table("Test images, true class by row")[1:]  # of the best model, the first shown
    best = next(model for model in report.results if model.name == "high")
    assert [[int(cell) for cell in row[1:]] for row in rows] == best.matrix(CLASSES).tolist()
    owners = [t["attrs"]["data-model"] for t in page.all("table") if "data-model" in t["attrs"]]
    assert owners == ["high", "middle", "low"]  # as the sections
    assert np.trace(best.matrix(CLASSES)) == 72
    # Every error takes the next class for the true one, and all are 2 of 8.
    assert best.top_confusions() == [
        {"true": true, "predicted": CLASSES[(i + 1) % 4], "images": 2}
        for i, true in enumerate(CLASSES)
    ]


def test_the_verdict_stands_in_both_reports(report: Report, page: Page) -> None:
    right = {model.name: model.right for model in report.results}
    text = verdict(leaderboard(report.results), right)
    assert text.startswith("high leads")
    assert text in page.all("header")[0]["text"]
    assert f"**{text}**" in report.markdown()


def test_a_run_without_validation_images_shows_a_dash(report: Report) -> None:
    for number, model in enumerate(report.results):
        none = replace(model, metrics=model.metrics | {"val_accuracy": None})
        report.results[number] = none
        rows = Page(report.html()).table("On the 80 test images")
        column = rows[0].index("validation")
        shown = {row[0]: row[column] for row in rows[1:]}
        assert shown[model.name] == "–"
        assert list(shown.values()).count("–") == number + 1


def test_a_model_without_errors_and_one_without_a_hit_are_reported(report: Report) -> None:
    report.results[:2] = [
        make_results(report.folder, "perfect", right=1.0),
        make_results(report.folder, "hopeless", right=0.0),
    ]
    page = Page(report.html())
    (perfect,) = [e for e in page.all("section") if e["attrs"].get("id") == "model-perfect"]
    assert "Most often: nothing." in perfect["text"]
    assert (0, {"answers": "chosen-correct", "model": "hopeless", "order": "index"}) in asked(page)
    assert "| perfect | none |" in report.markdown()


def test_a_matrix_of_many_classes_is_left_out(report: Report) -> None:
    classes = [f"class {i}" for i in range(31)]
    report.dataset = make_dataset(classes)
    report.dataset["images"]["test"] = 93
    report.results = [make_results(report.folder, "m", n=93, classes=classes)]
    html = report.html()
    assert "true class by row" not in html
    assert "All 31 × 31 confusions stand in <code>models/m/confusion.csv</code>" in html
    assert len(Page(html).table("Each class")) == 32


def test_many_models_of_many_classes_stay_within_the_limit(report: Report) -> None:
    classes = [f"class {i}" for i in range(30)]
    report.dataset = make_dataset(classes, test=6000)
    report.results = [
        make_results(report.folder, f"m{i}", n=6000, classes=classes, seed=i) for i in range(20)
    ]
    html = report.html()
    assert "true class by row" not in html
    assert len(html.encode()) <= MOST_BYTES
    report.results = report.results[:10]
    assert "true class by row" in report.html()


def test_one_model_is_compared_with_none(report: Report) -> None:
    report.results = report.results[:1]
    page = Page(report.html())
    assert "compare" not in {e["attrs"].get("id") for e in page.all("section")}
    assert not [e for e in page.all("select") if e["attrs"]["name"] == "shared"]
    assert "alone" not in [e["attrs"]["value"] for e in page.all("option")]


def test_a_score_of_a_class_that_is_never_seen_is_a_dash(report: Report) -> None:
    labels = np.arange(80) % 2  # of four classes
    report.results = [results_of(report.folder, "m", labels, 2 * labels)]
    rows = Page(report.html()).table("Each class")
    scores = {row[0]: row[1:4] + row[5:] for row in rows[1:]}
    assert scores[CLASSES[0]] == ["40", "1.000", "1.000", "1.000"]
    assert scores[CLASSES[1]] == ["40", "–", "0.000", "0.000"]
    assert scores[CLASSES[2]] == ["0", "0.000", "–", "0.000"]
    assert scores[CLASSES[3]] == ["0", "–", "–", "–"]


@pytest.mark.parametrize("temperature", [0.0501, 19.99])
def test_a_temperature_at_the_end_of_the_search_is_told(report: Report, temperature: float) -> None:
    assert "the last one tried" not in report.html()
    report.results[0].metrics["temperature"] = temperature
    assert report.html().count("the last one tried") == 1


def test_the_page_shows_parameters_and_provenance(report: Report, page: Page) -> None:
    (pre,) = page.all("pre")
    assert Params.model_validate(yaml.safe_load(pre["text"])) == report.params
    footer = " ".join(page.all("footer")[0]["text"].split())
    assert footer == "revision 0123456789ab with <changes> · Python 3.11.9"
    assert "0123456789abcdef" in page.all("main")[0]["text"]


def test_equal_results_give_equal_bytes(report: Report) -> None:
    assert report.html() == report.html()
    assert report.markdown() == report.markdown()


def test_a_picture_in_the_page_is_the_picture(tmp_path: Path) -> None:
    make_picture(tmp_path / "p.png")
    head, content = data_uri(tmp_path / "p.png").split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
        assert picture.format == "WEBP"
        pixels = np.array(picture.convert("RGB")).astype(int)
    assert pixels.shape == (8, 12, 3)
    assert np.abs(pixels - (200, 40, 90)).max() <= 6
