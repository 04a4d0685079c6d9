"""The HTML report: correct, escaped, accessible, and without external requests."""

import base64
import hashlib
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cifarpipe.config.schema import Params
from cifarpipe.report.cifar10 import CIFAR10_CLASSES
from cifarpipe.report.leaderboard import COLUMNS
from cifarpipe.report.pages import MAX_BYTES, data_uri, fit, page_warnings
from cifarpipe.report.sentences import verdict
from cifarpipe.report.study import Study
from cifarpipe.results.metrics import Metric
from cifarpipe.results.neighbours import Neighbours
from tests.support.report_inputs import (
    CLASSES,
    NO_LABELS,
    SCRIPT,
    TITLE,
    Page,
    Report,
    make_dataset,
    make_picture,
    make_report,
    make_results,
    queries,
    results_of,
)

SOURCE = r"#|https://(doi\.org|arxiv\.org|proceedings\.neurips\.cc)/"


@pytest.fixture
def report(demo_params: Params, tmp_path: Path) -> Report:
    return make_report(demo_params, tmp_path)


@pytest.fixture(scope="module")
def page(demo_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the page of an unchanged report."""
    return Page(make_report(demo_params, tmp_path_factory.mktemp("report")).html())


# Safety and accessibility.


def test_page_has_no_external_reference(report: Report, page: Page) -> None:
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = element["attrs"].get(name)
            allowed = SOURCE if element["tag"] == "a" else r"data:image/webp;base64,"
            assert value is None or re.match(allowed, value), value
    assert not page.all("link", "iframe", "object", "embed", "base", "video")
    assert not [e for e in page.all("script", "form") if {"src", "action"} & set(e["attrs"])]
    (style,) = page.all("style")
    assert not re.search(r"url\(|@import|https?:", style["text"])
    # A class name may be an address, as text. Otherwise there are links to sources only.
    html = re.sub(f'href="({SOURCE})', "", report.html())
    assert "http" not in html.replace("http-equiv", "").replace("http://evil", "")


def test_content_security_policy_forbids_requests(page: Page) -> None:
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


def test_names_are_escaped(report: Report, page: Page) -> None:
    html = report.html()
    assert SCRIPT not in html
    assert "<b " not in html
    assert not page.all("b")
    assert "alert(1)" not in page.all("script")[1]["text"]
    assert json.loads(page.all("script")[0]["text"])["classes"] == CLASSES
    assert not [name for e in page.elements for name in e["attrs"] if name.startswith("on")]
    (heading,) = page.all("h1")
    assert heading["text"] == page.all("title")[0]["text"] == TITLE
    assert page.table("Metrics of each class")[1][0] == SCRIPT
    assert page.table("Test images by true class")[0][1:] == CLASSES
    (cell,) = [e for e in page.all("p") if e["text"].startswith("Most often")][:1]
    assert 'a "quoted" | piped' in cell["text"]
    assert "with <changes>" in page.all("footer")[0]["text"]


def test_links_lead_to_existing_unique_ids(page: Page) -> None:
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    links = [element["attrs"]["href"] for element in page.all("a")]
    links = [link for link in links if link.startswith("#")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    sections = {e["attrs"]["id"] for e in page.all("section")}
    assert sections == {link.removeprefix("#") for link in links}
    script = page.all("script")[1]["text"]
    assert set(re.findall(r'getElementById\("([^"]+)"\)', script)) <= set(ids)


def test_every_image_has_a_description(report: Report, page: Page) -> None:
    alts = [picture["attrs"]["alt"] for picture in page.all("img")]
    assert len(alts) == 2
    alts += [svg["attrs"]["aria-label"] for svg in page.all("svg")]
    assert len(alts) == 2 + len(report.results)
    assert all(len(alt.split()) >= 4 for alt in alts)
    bins = report.results[1].calibration.iloc[-1]
    assert f"accuracy {bins.accuracy:.2f}, {bins.images:.0f} images" in alts[2]


def test_tables_have_captions_and_heads_have_scopes(report: Report, page: Page) -> None:
    tables = page.all("table")
    weak = report.study().weak_groups.model.nunique()
    # leaderboard, comparison, explanations, models
    assert len(tables) == 1 + 3 + 1 + 4 * 3 + weak
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


def test_page_has_language_and_dark_colours(page: Page) -> None:
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    assert "prefers-color-scheme: dark" in page.all("style")[0]["text"]
    for region in page.elements:
        if region["attrs"].get("tabindex") == "0":  # scrollable by keyboard, so it needs a label
            assert region["attrs"]["aria-label"]


# Content.


def test_leaderboard_is_shown(report: Report, page: Page) -> None:
    board = report.study().board
    rows = page.table("On 80 test images")
    assert [row[0] for row in rows[1:]] == board.model.tolist()
    best = dict(zip(rows[0], rows[1], strict=True))
    assert best["accuracy"] == "90.00%"
    assert best["errors"] == "8"
    assert best["validation"] == "50.00%"
    assert best["epoch"] == "2 of 3"
    assert best["parameters"] == "1,234,567"
    assert best["MACs"] == "2.5 M"
    headings = [h["text"] for h in page.all("h2")]
    assert headings[6:9] == board.model.tolist()


def marked(study: Study) -> dict[str, np.ndarray]:
    """Return what the page marks each image as."""
    candidates = study.label_candidates.query("split == 'test'")
    lists = {"possible label error": candidates, "near-duplicate in train": study.near_duplicates}
    numbers = np.arange(len(study.test))
    marks = {name: np.isin(numbers, table.position) for name, table in lists.items()}
    groups = itertools.chain.from_iterable(study.groups.values())
    return marks | {group.name: group.members for group in groups}


def test_every_count_equals_images_of_its_query(report: Report, page: Page) -> None:
    """The same filter as in the page's script, in pandas."""
    names = [model.name for model in report.results]
    wrong = sum((~model.is_correct).astype(int) for model in report.results)
    found = queries(page)
    assert len(found) > 25
    for count, values in found:
        model = report.results[names.index(values["model"])]
        table = model.predictions.assign(wrong=wrong)
        keep = {
            "all": table.true == table.true,
            "errors": table.true != table.predicted,
            "correct": table.true == table.predicted,
            "alone": (table.true != table.predicted) & (table.wrong == 1),
            "selected-errors": table["index"].isin(model.misclassified["index"]),
            "selected-correct": table["index"].isin(model.correct["index"]),
        }[values["outcome"]]
        for side in ("true", "predicted"):
            if side in values:
                keep &= table[side] == CLASSES[int(values[side])]
        if "shared" in values:
            keep &= table.wrong == int(values["shared"])
        if "flag" in values:
            keep &= marked(report.study())[values["flag"]]
        assert keep.sum() == count, values


def test_explanations_are_judged_with_intervals(report: Report, page: Page) -> None:
    text = page.all("main")[0]["text"]
    assert "ROAD, SaCo: better than random and centre maps" in text
    row = page.table("Quality of each model's maps")[1]
    assert row[:4] == ["high", "layercam", "8 × 8", "0.40"]
    assert "0.40 0.30 – 0.50" in row


def test_mask_metrics_are_shown_if_known(report: Report, page: Page) -> None:
    caption = "Quality of each model's maps"
    assert "pointing game" not in page.table(caption)[0]
    masked = {
        "pointing_game": Metric(0.75, 0.7, 0.8, random=0.25, centre=0.5, images=123),
        "energy_inside": Metric(0.6, 0.5, 0.7, random=0.25, centre=0.4, images=123),
    }
    for model in report.results:
        model.quality.update(masked)
    head, row, *_ = Page(report.html()).table(caption)
    assert head[3:6] == ["pointing game", "centre", "energy inside"]
    assert row[3:6] == ["0.75 0.70 – 0.80", "0.50", "0.60 0.50 – 0.70"]
    del report.results[1].quality["pointing_game"]  # of the best model: no correct image
    assert Page(report.html()).table(caption)[1][3:5] == ["–", "–"]


def test_metrics_without_a_gain_are_next_to_baselines(page: Page) -> None:
    head, row, *_ = page.table("Quality of each model's maps")
    shown = dict(zip(head, row, strict=True))
    assert shown["deletion"] == "0.20 0.31, 0.32"
    assert shown["insertion"] == "0.80 0.41, 0.42"
    assert shown["SaCo"] == "0.60 0.00, 0.10"
    assert shown["sparseness"] == "0.50 0.40, 0.30"
    assert shown["max-sensitivity"] == "0.20 1.70, 0.00"


def test_device_is_shown_for_each_model(page: Page) -> None:
    assert page.all("main")[0]["text"].count("trained on GPU of a test, bf16") == 3


def test_missing_metrics_are_dashes(report: Report) -> None:
    for model in report.results:
        model.quality.clear()
        model.quality.update(
            explained=Metric(80),
            without_evidence_errors=Metric(0),
            without_evidence_correct=Metric(0),
        )
    page = Page(report.html())
    assert set(page.table("Quality of each model's maps")[1][3:]) == {"–"}
    assert "not evaluated" in page.all("main")[0]["text"]


def test_methods_with_one_map_for_all_classes_are_named(report: Report) -> None:
    assert "one map for all classes" not in report.html()
    first = report.results[0]
    agnostic = replace(first.explanations, method="eigencam", class_specific=False)
    report.results[0] = replace(first, explanations=agnostic)
    assert "eigencam: one map for all classes." in report.html()


def test_maps_without_evidence_are_counted(report: Report, page: Page) -> None:
    text = page.all("main")[0]["text"]
    note = (
        "Maps without positive evidence for the predicted class: 1 of errors, 0 of correct images."
    )
    assert text.count(note) == 3
    for model in report.results:
        model.quality["without_evidence_errors"] = Metric(0)
    assert "Maps without positive evidence" not in report.html()


@pytest.mark.thorough
def test_large_page_contains_fewer_images(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "This page contains 80 of the 80 test images." in report.html()
    module = "cifarpipe.report.pages.MAX_BYTES"
    whole = len(report.html().encode())
    monkeypatch.setattr(module, whole - 5_000)
    page = report.html()
    assert len(page.encode()) <= whole - 5_000
    shown = json.loads(Page(page).all("script")[0]["text"])["shown"]
    assert 20 < len(shown) < 80
    assert f"This page contains {len(shown)} of the 80 test images, chosen in this order" in page
    monkeypatch.setattr(module, 10)  # no image fits: still a page
    assert "This page contains 0 of the 80 test images, chosen in this order" in report.html()


def test_as_many_images_are_shown_as_fit() -> None:
    """Each has ten bytes, the page without them 100."""
    ranked = np.arange(50)[::-1]
    pages = {most: fit(lambda shown: "x" * (100 + 10 * len(shown)), ranked, most) for most in
             (1000, 600, 350, 109, 99)}  # fmt: skip
    assert len(pages[1000]) == 600
    for most in (350, 600):
        assert most - 30 <= len(pages[most]) <= most
    assert len(pages[109]) == len(pages[99]) == 100
    shown = []
    fit(lambda some: shown.append(some.tolist()) or "x" * (100 + 10 * len(some)), ranked, 350)
    assert shown[-1] == list(range(49, 49 - len(shown[-1]), -1))  # the first ones


@pytest.mark.thorough
def test_ten_models_on_noise_fit(report: Report) -> None:
    """Noise compresses worst; the test split has the size of CIFAR-10's."""
    n = 10_000
    report.dataset = make_dataset(CLASSES, test=n)
    report.results = [
        make_results(report.folder, f"m{i}", n=n, accuracy=0.9 - i / 50, seed=i) for i in range(10)
    ]
    noise = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    page = report.html(noise)
    assert len(page.encode()) <= MAX_BYTES < 3_000_000
    shown = json.loads(Page(page).all("script")[0]["text"])["shown"]
    assert len(shown) > 150


def test_confusion_matrix_is_shown_per_model(report: Report, page: Page) -> None:
    rows = page.table("Test images by true class")[1:]  # of the best model, which is shown first
    best = next(model for model in report.results if model.name == "high")
    assert [[int(cell) for cell in row[1:]] for row in rows] == best.matrix(CLASSES).tolist()
    owners = [t["attrs"]["data-model"] for t in page.all("table") if "data-model" in t["attrs"]]
    assert owners == ["high", "middle", "low"]  # in the order of the sections
    assert np.trace(best.matrix(CLASSES)) == 72
    # Every error predicts the class after the true one; there are 2 of each.
    assert best.top_confusions() == [
        {"true": true, "predicted": CLASSES[(i + 1) % 4], "images": 2}
        for i, true in enumerate(CLASSES)
    ]


def test_verdict_is_in_both_reports(report: Report, page: Page) -> None:
    study = report.study()
    text = verdict(study.board, study.pairs)
    assert text.startswith("high is best")
    assert text in page.all("header")[0]["text"]
    assert f"**{text}**" in report.markdown()


def test_page_without_validation_images_says_so(report: Report) -> None:
    assert "Validation images are held out" in report.html()
    report.dataset["images"]["val"] = 0
    page = report.html()
    assert "There are no validation images" in page
    assert "Validation images are held out" not in page
    assert "below validation accuracy" not in page


def test_sentence_about_cifar10_is_for_its_classes_only(report: Report) -> None:
    sentence = "Published results on CIFAR-10 often chose the best epoch on the test images"
    assert sentence not in report.html()
    report.dataset = make_dataset(CIFAR10_CLASSES)
    report.results = [make_results(report.folder, "vit", n=100, classes=CIFAR10_CLASSES)]
    assert sentence in report.html()


def test_list_of_too_many_labels_is_called_unreliable(report: Report) -> None:
    note = "This list is not reliable: more than 20% of the labels are in it"
    assert note not in report.html()
    labels = np.arange(80) % 4
    rotated = np.where(np.arange(80) < 60, (labels + 1) % 4, labels)
    report.results = [results_of(report.folder, "rotated", labels, rotated)]
    assert note in report.html()


def test_warnings_are_in_both_reports(report: Report) -> None:
    labels = np.arange(80) % 4
    predicted = np.ones(80, np.int64)
    report.results[2] = results_of(report.folder, "constant", labels, predicted)
    warning = (
        "may not have learned: its accuracy, 25.0%, is not significantly above 25.0%, that of its "
        "predictions in random order; it predicts 007 for 100% of all images."
    )
    shown = [
        e["text"] for e in Page(report.html()).all("p") if e["attrs"].get("class") == "warning"
    ]
    assert f"constant {warning}" in shown
    assert f"**constant** {warning}\n" in report.markdown()


def test_missing_validation_accuracy_is_a_dash(report: Report) -> None:
    for number, model in enumerate(report.results):
        metrics = {k: metric for k, metric in model.metrics.items() if k != "val_accuracy"}
        report.results[number] = replace(model, metrics=metrics)
        rows = Page(report.html()).table("On 80 test images")
        column = rows[0].index("validation")
        shown = {row[0]: row[column] for row in rows[1:]}
        assert shown[model.name] == "–"
        assert list(shown.values()).count("–") == number + 1


def test_perfect_and_hopeless_models_are_reported(report: Report) -> None:
    report.results[:2] = [
        make_results(report.folder, "perfect", accuracy=1.0),
        make_results(report.folder, "hopeless", accuracy=0.0),
    ]
    page = Page(report.html())
    (perfect,) = [e for e in page.all("section") if e["attrs"].get("id") == "model-perfect"]
    assert "Most often: nothing." in perfect["text"]
    assert (0, {"outcome": "selected-correct", "model": "hopeless", "order": "index"}) in queries(
        page
    )
    assert "| perfect | none |" in report.markdown()


def test_matrix_of_many_classes_is_left_out(report: Report) -> None:
    classes = [f"class {i}" for i in range(31)]
    report.dataset = make_dataset(classes)
    report.dataset["images"]["test"] = 93
    report.results = [make_results(report.folder, "m", n=93, classes=classes)]
    html = report.html()
    assert "by true class (row)" not in html
    assert "All 31 × 31 confusions are in <code>models/m/confusion.csv</code>" in html
    assert len(Page(html).table("Metrics of each class")) == 32


@pytest.mark.thorough
def test_many_models_and_classes_fit_without_matrices(report: Report) -> None:
    classes = [f"class {i}" for i in range(30)]
    report.dataset = make_dataset(classes, test=1500)
    report.results = [
        make_results(report.folder, f"m{i}", n=1500, classes=classes, seed=i) for i in range(20)
    ]
    html = report.html()
    assert "by true class (row)" not in html
    assert len(html.encode()) <= MAX_BYTES
    report.results = report.results[:10]
    assert "by true class (row)" in report.html()


def test_single_model_has_no_comparison(report: Report) -> None:
    report.results = report.results[:1]
    page = Page(report.html())
    assert "compare" not in {e["attrs"].get("id") for e in page.all("section")}
    assert not [e for e in page.all("select") if e["attrs"]["name"] == "shared"]
    assert "alone" not in [e["attrs"]["value"] for e in page.all("option")]


def test_undefined_class_metric_is_a_dash(report: Report) -> None:
    labels = np.arange(80) % 2  # of four classes
    report.results = [results_of(report.folder, "m", labels, 2 * labels)]
    rows = Page(report.html()).table("Metrics of each class")
    scores = {row[0]: row[1:4] + row[5:] for row in rows[1:]}
    assert scores[CLASSES[0]] == ["40", "1.000", "1.000", "1.000"]
    assert scores[CLASSES[1]] == ["40", "–", "0.000", "0.000"]
    assert scores[CLASSES[2]] == ["0", "0.000", "–", "0.000"]
    assert scores[CLASSES[3]] == ["0", "–", "–", "–"]


@pytest.mark.parametrize("temperature", [0.0501, 19.99])
def test_temperature_at_search_limit_is_noted(report: Report, temperature: float) -> None:
    note = "This temperature is at the limit of the search"
    assert note not in report.html()
    report.results[0].metrics["temperature"] = Metric(temperature, low=0.05, high=20.0)
    assert report.html().count(note) == 1


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.01, 1.2, "is overconfident: the temperature"),
        (0.8, 0.99, "is underconfident: the temperature"),
        (0.9, 1.3, "is neither significantly overconfident nor underconfident: the temperature"),
    ],
)
def test_confidence_is_judged_by_the_interval(
    report: Report, low: float, high: float, said: str
) -> None:
    middle = (low + high) / 2
    for model in report.results:
        model.metrics["temperature"] = Metric(middle, low=low, high=high)
    html = report.html()
    assert html.count(f"The network {said}") == len(report.results)
    assert f"{middle:.3f} (95% interval {low:.3f} to {high:.3f})" in html


def test_temperature_without_an_interval_has_no_verdict(report: Report) -> None:
    """Of an evaluation by an earlier version."""
    report.results[0].metrics["temperature"] = Metric(1.25)
    assert "<p>The temperature fitted on the validation split is 1.250. With it" in report.html()


def test_warning_about_large_page(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_bytes(b"x" * MAX_BYTES)
    assert page_warnings(page, NO_LABELS) == []
    page.write_bytes(b"x" * (MAX_BYTES + 300_000))
    (warning,) = page_warnings(page, NO_LABELS)
    assert "index.html has 3.2 MB, more than 2.9 MB" in warning


def test_warning_about_missing_label_file(report: Report, tmp_path: Path) -> None:
    text = "report.labels.human: <nowhere> does not exist"
    report.labels = replace(NO_LABELS, missing=(text,))
    page = tmp_path / "index.html"
    page.write_text(report.html())
    assert page_warnings(page, report.labels) == [text]
    shown = [p["text"] for p in Page(report.html()).all("p")]
    assert shown.count(f"{text}.") == 1


@pytest.mark.parametrize("names", [["middle"], ["high", "middle", "low"]])
def test_networks_without_features_are_named(names: list[str], report: Report) -> None:
    for number, model in enumerate(report.results):
        if model.name in names:
            some = model.neighbours
            none = Neighbours(
                some.nearest[:, :0],
                some.similarity[:, :0],
                np.zeros_like(some.votes),
                np.zeros_like(some.clusters),
                some.centres[:1],
            )
            report.results[number] = replace(model, neighbours=none)
    sentence = f"Models without features, since their networks have no head: {', '.join(names)}."
    assert any(p["text"].endswith(sentence) for p in Page(report.html()).all("p"))


def test_nothing_is_said_of_features_if_all_networks_have_them(page: Page) -> None:
    assert not any("without features" in p["text"] for p in page.all("p"))


def test_page_shows_parameters_and_provenance(report: Report, page: Page) -> None:
    (pre,) = page.all("pre")
    assert Params.model_validate(yaml.safe_load(pre["text"])) == report.params
    footer = " ".join(page.all("footer")[0]["text"].split())
    assert footer == "revision 0123456789ab with <changes> · Python 3.11.9"
    assert "0123456789abcdef" in page.all("main")[0]["text"]


def test_equal_results_give_equal_bytes(report: Report) -> None:
    assert report.html() == report.html()
    assert report.markdown() == report.markdown()


def test_data_uri_holds_the_image(tmp_path: Path) -> None:
    make_picture(tmp_path / "p.png")
    head, content = data_uri(tmp_path / "p.png").split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
        assert picture.format == "WEBP"
        pixels = np.array(picture.convert("RGB")).astype(int)
    assert pixels.shape == (8, 12, 3)
    assert np.abs(pixels - (200, 40, 90)).max() <= 6


def test_balanced_accuracy_is_shown_if_classes_are_unequal(report: Report, page: Page) -> None:
    assert "balanced" not in page.table("On 80 test images")[0]
    for counts, shown in (([24, 18, 19, 19], False), ([30, 19, 20, 11], True)):
        report.dataset["per_class"]["test"] = counts
        assert ("balanced" in Page(report.html()).table("On 80 test images")[0]) == shown


def test_every_column_of_the_leaderboard_is_shown(report: Report) -> None:
    report.dataset["per_class"]["test"] = [50, 10, 10, 10]
    heading, *rows = Page(report.html()).table("On 80 test images")
    summary = report.markdown()
    for column in COLUMNS:
        values = [row[heading.index(column.heading)] for row in rows]
        by_name = {model.name: model.metrics[column.metric].value for model in report.results}
        assert values == [column.text(by_name[row[0]]) for row in rows]
        assert (f"| {column.heading} |" in summary) == column.summary
