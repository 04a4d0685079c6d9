"""The report: right, escaped, readable by all, and with nothing fetched from anywhere."""

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cifarpipe.evaluation import (
    class_table,
    confusion_matrix,
    confusion_table,
    measure,
    predictions_table,
)
from cifarpipe.outputs import write_text
from cifarpipe.params import Params
from cifarpipe.params_file import load_params
from cifarpipe.report import (
    CIFAR10_CLASSES,
    ModelResults,
    data_uri,
    earlier_curves,
    leaderboard,
    render_html,
    render_markdown,
    verdict,
)
from cifarpipe.selection import choose_correct, choose_errors

SCRIPT = "<script>alert(1)</script>"
CLASSES = [SCRIPT, "007", 'a "quoted" | piped', "<img src=http://evil>"]
TITLE = '<b onclick="x()">Bold</b> & [link](#)'
PROVENANCE = {"revision": "0123456789ab with <changes>", "Python": "3.11.9"}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def make_results(
    folder: Path, name: str, *, right: float = 0.7, n: int = 80, seed: int = 0, classes: Any = None
) -> ModelResults:
    """Return what the stages would have found about a network that is right in `right` of n."""
    classes = CLASSES if classes is None else classes
    k = len(classes)
    labels = np.arange(n) % k
    logits = np.random.default_rng(seed).normal(0, 0.1, (n, k)).astype(np.float32)
    shift = np.arange(n) >= round(right * n)
    logits[np.arange(n), (labels + shift) % k] += 3
    table = predictions_table(logits, labels, np.arange(n) * 2, classes, None)
    matrix = confusion_matrix(labels, logits.argmax(axis=1), k)
    errors = choose_errors(table, classes, count=6, seed=0)
    for picture in ("misclassified", "correct", "gradcam", "gradcam_correct"):
        make_picture(folder / "models" / name / f"{picture}.png")
    return ModelResults(
        name=name,
        arch="convmixer",
        folder=folder / "models" / name,
        metrics={
            **measure(logits, labels, calibration_bins=15, temperature=1.0),
            "val_accuracy": 0.5,
            "kept_epoch": 2,
        },
        cost={"parameters": 1_234_567, "macs": 2_500_000},
        gradcam={"without_evidence_errors": 1, "without_evidence_correct": 0},
        history=pd.DataFrame({"epoch": [1, 2, 3], "seconds": [2.0, 1.0, 1.0]}),
        layers=pd.DataFrame(
            {
                "layer": ["stem.0", "class_token"],
                "type": ["Conv2d", "Parameter"],
                "output": ["8 x 4 x 4", ""],
                "parameters": [1_234_000, 567],
                "macs": [2_500_000, 0],
            }
        ),
        per_class=class_table(matrix, classes),
        confusion=confusion_table(matrix, classes),
        misclassified=errors,
        correct=choose_correct(table, classes, errors, seed=0),
    )  # fmt: skip


def make_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 12, 3), (200, 40, 90), np.uint8)).save(path)


def make_dataset(classes: list[str]) -> dict[str, Any]:
    return {
        "source": "folder",
        "classes": classes,
        "images": {"train": 4000, "val": 100, "test": 80},
        "image_size": 32,
        "fingerprint": "0123456789abcdef",
    }


@dataclass
class Report:
    """All that goes into a report, and the folder where it is written."""

    folder: Path
    params: Params
    dataset: dict[str, Any]
    results: list[ModelResults]

    def shared(self) -> dict[str, Any]:
        return {
            "params": self.params,
            "dataset": self.dataset,
            "results": self.results,
            "board": leaderboard(self.results, self.dataset["images"]["train"]),
            "provenance": PROVENANCE,
        }

    def html(self) -> str:
        pictures = {"curves": self.folder / "curves.png", "dataset": self.folder / "dataset.png"}
        return render_html(**self.shared(), pictures=pictures)

    def markdown(self) -> str:
        return render_markdown(**self.shared())


@pytest.fixture
def report(demo_params: Params, tmp_path: Path) -> Report:
    for name in ("curves", "dataset"):
        make_picture(tmp_path / f"{name}.png")
    params = demo_params.model_copy(
        update={"report": demo_params.report.model_copy(update={"title": TITLE})}
    )
    results = [
        make_results(tmp_path, "low", right=0.4),
        make_results(tmp_path, "high", right=0.9),
        make_results(tmp_path, "middle", right=0.7),
    ]
    return Report(tmp_path, params, make_dataset(CLASSES), results)


class Page(HTMLParser):
    """A parsed page: every element with its attributes, parent and text; refuses broken nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {[element['tag'] for element in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> stands twice"
        parent = self.open[-1] if self.open else None
        element = {"tag": tag, "attrs": dict(attrs), "children": [], "text": "", "parent": parent}
        if parent:
            parent["children"].append(element)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]

    def table(self, caption: str) -> list[list[str]]:
        """Return the cells of the table whose caption begins so."""
        found = [e for e in self.all("table") if e["children"][0]["text"].startswith(caption)]
        rows = [e for e in self.all("tr") if e["parent"]["parent"] is found[0]]
        return [[cell["text"].strip() for cell in row["children"]] for row in rows]


@pytest.fixture
def page(report: Report) -> Page:
    return Page(report.html())


# Safe and readable.


def test_nothing_is_fetched(report: Report, page: Page) -> None:
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = element["attrs"].get(name)
            assert value is None or re.match(r"data:image/webp;base64,|#", value), value
    assert not page.all("script", "link", "iframe", "object", "embed", "form", "base", "video")
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
    assert rules == {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'",
    }  # fmt: skip


def test_names_from_outside_are_text_and_nothing_else(report: Report, page: Page) -> None:
    html = report.html()
    assert SCRIPT not in html
    assert "<b " not in html
    assert not page.all("script", "b")
    assert not [name for e in page.elements for name in e["attrs"] if name.startswith("on")]
    (heading,) = page.all("h1")
    assert heading["text"] == page.all("title")[0]["text"] == TITLE
    assert page.table("Each class")[1][0] == SCRIPT
    assert page.table("Test images, true class by row")[0][1:] == CLASSES
    assert any(SCRIPT in image["attrs"]["alt"] for image in page.all("img"))
    assert any('a "quoted" | piped' in image["attrs"]["alt"] for image in page.all("img"))
    assert "with <changes>" in page.all("footer")[0]["text"]


def test_links_lead_to_places_that_are_there_once(page: Page) -> None:
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    links = [element["attrs"]["href"] for element in page.all("a")]
    assert {link.removeprefix("#") for link in links} == set(ids)


def test_every_picture_says_what_it_shows(report: Report, page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 2 + 4 * len(report.results)
    alts = [picture["attrs"]["alt"] for picture in pictures]
    assert all(len(alt.split()) >= 4 for alt in alts)
    errors = report.results[0].misclassified.iloc[0]
    described = (
        f"#{errors['index']}: true {errors['true']}, predicted {errors['predicted']} "
        f"({errors['confidence']:.2f})."
    )
    assert any(described in alt for alt in alts)


def test_every_table_has_a_caption_and_every_head_a_scope(page: Page) -> None:
    tables = page.all("table")
    assert len(tables) == 1 + 3 * 3
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
        if "tabindex" in region["attrs"]:  # scrolled by keyboard, so it needs a name
            assert region["attrs"]["aria-label"]


# Right.


def test_the_leaderboard_is_in_order_and_complete(report: Report, page: Page) -> None:
    board = leaderboard(report.results, 4000)
    assert board.model.tolist() == ["high", "middle", "low"]
    assert board.errors.tolist() == [8, 24, 48]
    assert board.accuracy.tolist() == [0.9, 0.7, 0.4]
    assert board.images.tolist() == [80] * 3
    assert board.train_seconds.tolist() == [4.0] * 3
    assert board.train_images_per_second.tolist() == [3000] * 3  # 3 epochs of 4000 in 4 s
    assert board.kept_epoch.tolist() == [2] * 3
    assert board.epochs.tolist() == [3] * 3
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
    assert headings[2:5] == board.model.tolist()


def test_models_that_score_the_same_keep_the_order_of_the_parameters(tmp_path: Path) -> None:
    results = [make_results(tmp_path, name) for name in ("c", "a", "b")]
    assert leaderboard(results, 1).model.tolist() == ["c", "a", "b"]


def test_errors_that_do_not_add_up_stop_the_report(report: Report) -> None:
    model = report.results[1]
    report.results[1] = replace(model, metrics=model.metrics | {"errors": 9})
    with pytest.raises(AssertionError, match="high: errors are not what is off the diagonal"):
        report.html()


def test_confusions_stand_where_they_belong(report: Report, page: Page) -> None:
    rows = page.table("Test images, true class by row")[1:]  # of the best model, the first shown
    best = next(model for model in report.results if model.name == "high")
    assert [[int(cell) for cell in row[1:]] for row in rows] == best.matrix(CLASSES).tolist()
    assert np.trace(best.matrix(CLASSES)) == 72
    # Every error takes the next class for the true one, and all are 2 of 8.
    assert best.top_confusions() == [
        {"true": true, "predicted": CLASSES[(i + 1) % 4], "images": 2}
        for i, true in enumerate(CLASSES)
    ]


def test_top_confusions_are_the_most_frequent_ones() -> None:
    classes = list("abc")
    matrix = np.array([[9, 1, 4], [0, 9, 7], [2, 3, 9]])
    model = only_confusion(confusion_table(matrix, classes))
    pairs = [(pair["true"], pair["predicted"], pair["images"]) for pair in model.top_confusions()]
    assert pairs == [("b", "c", 7), ("a", "c", 4), ("c", "b", 3), ("c", "a", 2), ("a", "b", 1)]
    assert model.images == 44
    assert not only_confusion(confusion_table(np.eye(3, dtype=int), classes)).top_confusions()


def only_confusion(confusion: pd.DataFrame) -> ModelResults:
    nothing = pd.DataFrame()
    return ModelResults(
        name="m", arch="vit", folder=Path(), metrics={}, cost={}, gradcam={}, history=nothing,
        layers=nothing, per_class=nothing, confusion=confusion, misclassified=nothing,
        correct=nothing,
    )  # fmt: skip


def make_board(*intervals: tuple[float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": f"m{i}", "accuracy": mid, "accuracy_low": low, "accuracy_high": high}
            for i, (low, mid, high) in enumerate(intervals)
        ]
    ).assign(images=10_000)


def test_the_verdict_names_a_lead() -> None:
    board = make_board((0.88, 0.9, 0.92), (0.78, 0.8, 0.8799), (0.1, 0.2, 0.3))
    assert verdict(board) == (
        "m0 leads with 90.00% of 10,000 test images right (95% interval 88.00% to 92.00%)."
    )


def test_the_verdict_admits_a_tie() -> None:
    board = make_board((0.88, 0.9, 0.92), (0.87, 0.89, 0.91), (0.84, 0.86, 0.88), (0.1, 0.2, 0.3))
    text = verdict(board)
    assert text.startswith("m0 has 90.00%")
    assert text.endswith("; m1 and m2 within its interval: a tie.")
    assert "m3" not in text


def test_a_single_model_leads() -> None:
    assert verdict(make_board((0.88, 0.9, 0.92))).startswith("m0 leads with 90.00%")


def test_the_verdict_stands_in_both_reports(report: Report, page: Page) -> None:
    text = verdict(leaderboard(report.results, 4000))
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


def test_maps_without_evidence_are_told(report: Report, page: Page) -> None:
    text = page.all("main")[0]["text"]
    assert text.count("For 1 of all its errors it found no evidence for the class predicted.") == 3
    for model in report.results:
        model.gradcam["without_evidence_errors"] = 0
    assert "it found no evidence" not in report.html()


def test_the_pointing_game_is_told_where_it_was_played(report: Report, page: Page) -> None:
    assert "Pointing game" not in page.all("main")[0]["text"]
    report.results[0].gradcam.update(
        pointing_game=0.75, pointing_game_low=0.7, pointing_game_high=0.8,
        pointing_game_centre=0.5, pointing_game_random=0.25, pointing_game_images=123,
    )  # fmt: skip
    text = Page(report.html()).all("main")[0]["text"]
    assert text.count("Pointing game") == 1
    assert "on 123 correct images" in text
    assert "in 75.0% (95% interval 70.0 – 80.0)" in text
    assert "the middle gives 50.0%, pointing anywhere 25.0%" in text


def test_a_model_without_errors_and_one_without_a_hit_are_reported(report: Report) -> None:
    report.results[:2] = [
        make_results(report.folder, "perfect", right=1.0),
        make_results(report.folder, "hopeless", right=0.0),
    ]
    page = Page(report.html())
    alts = [picture["attrs"]["alt"] for picture in page.all("img")]
    assert alts.count("None shown.") == 3
    hopeless = [e for e in page.all("section") if e["attrs"]["id"] == "model-hopeless"]
    assert "0 correct images, matched by class." in hopeless[0]["text"]
    assert alts[-3] == "None shown."  # its third of four; the data's picture comes last
    assert "| perfect | none |" in report.markdown()


def test_a_matrix_of_many_classes_is_left_out(report: Report) -> None:
    classes = [f"class {i}" for i in range(31)]
    report.dataset = make_dataset(classes)
    report.results = [make_results(report.folder, "m", n=93, classes=classes)]
    html = report.html()
    assert "true class by row" not in html
    assert len(Page(html).table("Each class")) == 32


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


# The short form.


def test_markdown_escapes_names(report: Report) -> None:
    text = report.markdown()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; → 007" in text
    assert "<b " not in text
    assert "<img" not in text
    table = [line for line in text.splitlines() if line.startswith("| high |")]
    assert len(table) == 2  # leaderboard and errors
    # A piped name makes no column of its own.
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [12, 3]
    assert r"\| piped" in table[1]


def test_markdown_links_are_relative_and_there(report: Report) -> None:
    text = report.markdown()
    write_text(report.folder / "summary.md", text)
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert links == ["curves.png", "models/high/gradcam.png"]
    assert all((report.folder / link).is_file() for link in links)
    assert "data:" not in text  # a review comment strips it


def test_markdown_fits_a_review_comment(report: Report) -> None:
    classes = [f"{i}{'x' * 250}" for i in range(12)]  # as long as a folder's name may be
    report.dataset = make_dataset(classes)
    report.results = [
        make_results(report.folder, f"m{i}" + "y" * 57, n=120, classes=classes) for i in range(10)
    ]
    assert len(report.markdown()) < 60_000


def test_markdown_ends_with_its_provenance_and_one_line_end(report: Report) -> None:
    text = report.markdown()
    assert text.startswith("# ")
    assert "Python 3.11.9" in text.splitlines()[-1] or "Python 3.11.9" in text.splitlines()[-2]
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert "4000 train, 100 validation, 80 test images" in text
    assert "(chosen on validation)" in text


# The runs before.


@pytest.fixture
def study() -> Params:
    return load_params("params.yaml")


def test_earlier_curves_are_of_cifar10_alone(study: Params) -> None:
    assert earlier_curves(study, CIFAR10_CLASSES)
    assert earlier_curves(study, CIFAR10_CLASSES[::-1]) == {}
    assert earlier_curves(study, CIFAR10_CLASSES[:9]) == {}
    assert earlier_curves(study, CLASSES) == {}


def test_earlier_curves_have_our_columns_and_count_from_one(study: Params) -> None:
    curves = earlier_curves(study, CIFAR10_CLASSES)
    assert list(curves) == list(study.report.baselines)
    for name, curve in curves.items():
        raw = pd.read_csv(study.report.baselines[name])
        assert {"epoch", "train_acc", "val_acc"} <= set(curve)
        assert not {"test_acc", "test_loss"} & set(curve)
        assert curve.val_acc.tolist() == raw.test_acc.tolist()
        assert (curve.epoch.diff().dropna() == 1).all()
    assert curves["vit"].epoch.tolist() == curves["vit_t2t"].epoch.tolist() == list(range(1, 26))
    # Counted from 1 already, or begun late in the run: left as it is.
    assert curves["resnet18_ln_plateau"].epoch.min() == 1
    assert curves["resnet18_ln_plateau"].val_loss[0] == 2.156
    assert curves["resnet18_ln"].epoch.min() == 32


def test_the_page_speaks_of_earlier_runs_only_where_they_are_drawn(
    report: Report, study: Params
) -> None:
    report.params = study
    assert "Dashed: the runs" not in report.html()
    report.dataset = make_dataset(CIFAR10_CLASSES)
    report.results = [make_results(report.folder, "vit", n=100, classes=CIFAR10_CLASSES)]
    assert "Dashed: the runs" in report.html()


def test_the_leaderboard_can_be_written_as_json(report: Report) -> None:
    """Nothing in it is a type of numpy's that other tools can't read."""
    board = leaderboard(report.results, 4000)
    assert json.loads(board.to_json(orient="records"))[0]["model"] == "high"
