"""Results of models: consistency, leaderboard, verdict, and quality of explanations in words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.report.comparison import compare_pairs
from cifarpipe.report.leaderboard import leaderboard
from cifarpipe.report.sentences import judge_explanations, verdict
from cifarpipe.results.metrics import Metric
from tests.support.report_inputs import QUALITY, make_results, results_of


def test_leaderboard_is_sorted_and_complete(tmp_path: Path) -> None:
    results = [
        make_results(tmp_path, name, accuracy=accuracy)
        for name, accuracy in (("low", 0.4), ("high", 0.9), ("middle", 0.7))
    ]
    board = leaderboard(results)
    assert board.model.tolist() == ["high", "middle", "low"]
    assert board.errors.tolist() == [8, 24, 48]
    assert board.accuracy.tolist() == [0.9, 0.7, 0.4]
    assert board.images.tolist() == [80] * 3
    assert board.kept_epoch.tolist() == [2] * 3
    assert board.epochs.tolist() == [3] * 3
    # It has no NumPy types, which other tools can't read.
    assert json.loads(board.to_json(orient="records"))[0]["model"] == "high"


def test_tta_accuracy_is_an_optional_column(tmp_path: Path) -> None:
    without, with_tta = (make_results(tmp_path, name, accuracy=0.5) for name in ("a", "b"))
    assert "tta_accuracy" not in leaderboard([without])
    with_tta = replace(with_tta, metrics=with_tta.metrics | {"tta_accuracy": Metric(0.6)})
    board = leaderboard([without, with_tta])
    assert board.model.tolist() == ["a", "b"]  # it does not affect the order
    assert np.isnan(board.tta_accuracy[0])
    assert board.tta_accuracy[1] == 0.6


def test_equal_accuracies_keep_order_of_params(tmp_path: Path) -> None:
    results = [make_results(tmp_path, name) for name in ("c", "a", "b")]
    assert leaderboard(results).model.tolist() == ["c", "a", "b"]


def test_inconsistent_tables_stop_the_report(tmp_path: Path) -> None:
    model = make_results(tmp_path, "m")
    confusion = model.confusion.copy()
    confusion.loc[0, "images"] += 1
    confusion.loc[1, "images"] -= 1
    table = model.predictions.copy()
    table.loc[0, "predicted"] = table.true[1]
    for change in (
        {"metrics": model.metrics | {"errors": Metric(9)}},
        {"confusion": confusion},
        {"predictions": table},
    ):
        with pytest.raises(AssertionError, match="m: metrics, confusions and predictions"):
            replace(model, **change)
    with pytest.raises(AssertionError, match="m: maps are missing"):
        replace(model, explanations=model.explanations.of(np.arange(1, 80) * 2))


def test_top_confusions_are_most_frequent_first(tmp_path: Path) -> None:
    matrix = np.array([[9, 1, 4], [0, 9, 7], [2, 3, 9]])
    labels, predicted = (
        np.repeat(side.ravel(), matrix.ravel()) for side in np.indices(matrix.shape)
    )
    model = results_of(tmp_path, "m", labels, predicted, classes=list("abc"))
    pairs = [(pair["true"], pair["predicted"], pair["images"]) for pair in model.top_confusions()]
    assert pairs == [("b", "c", 7), ("a", "c", 4), ("c", "b", 3), ("c", "a", 2), ("a", "b", 1)]
    assert model.images == 44
    perfect = results_of(tmp_path, "m", labels, labels, classes=list("abc"))
    assert not perfect.top_confusions()


def make_board(*correct: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return leaderboard and pairs of models that predict the first of 100 images correctly."""
    rows = [
        {"model": f"m{i}", "accuracy": n / 100, "accuracy_low": 0.8, "accuracy_high": 0.95}
        for i, n in enumerate(correct)
    ]
    return (
        pd.DataFrame(rows).assign(images=100),
        compare_pairs({f"m{i}": np.arange(100) < n for i, n in enumerate(correct)}, np.ones(100)),
    )


def test_significantly_better_model_is_best() -> None:
    """Six more images correct, none fewer: p = 2 / 2**6 = 0.03."""
    assert verdict(*make_board(90, 84, 20)) == (
        "m0 is best, with 90.00% accuracy on 100 test images (95% interval 80.00% to 95.00%)."
    )


def test_insignificant_difference_is_said() -> None:
    """Five more images correct: p = 2 / 2**5 = 0.06."""
    assert verdict(*make_board(90, 85)) == (
        "m0 has 90.00% accuracy on 100 test images (95% interval 80.00% to 95.00%); no "
        "significant difference from m1 (McNemar test, 5%)."
    )


def test_verdict_is_corrected_for_the_number_of_pairs() -> None:
    """Six more images correct than two models: p = 0.03 twice, corrected 0.09."""
    assert verdict(*make_board(90, 84, 84)).endswith(
        "no significant difference from m1, m2 (McNemar test, 5%, Holm correction for 3 pairs)."
    )


def test_equal_accuracy_with_other_errors_is_no_difference() -> None:
    board, _ = make_board(90, 90)
    hits = np.arange(100) < 90
    pairs = compare_pairs({"m0": hits, "m1": hits[::-1]}, np.ones(100))
    assert "no significant difference from m1 (" in verdict(board, pairs)


def test_single_model_is_not_called_best() -> None:
    assert verdict(*make_board(90)).startswith("m0 has 90.00% accuracy on 100 test images")


def test_explanations_are_judged_by_their_intervals() -> None:
    assert judge_explanations(QUALITY) == (
        "ROAD, SaCo: better than random and centre maps; "
        "maps of networks with random weights are not significantly more similar to these "
        "maps than unrelated maps are"
    )
    centre = QUALITY | {"road_over_centre": Metric(0.2, low=-0.01, high=0.4)}
    only_random = "better than random maps, but not significantly better than centre maps"
    assert judge_explanations(centre).startswith(f"ROAD: {only_random}; SaCo: better than random a")
    centre |= {"saco_over_centre": Metric(0.0, low=-0.1, high=0.1)}
    assert judge_explanations(centre).startswith(f"ROAD, SaCo: {only_random}; ")
    worse = centre | {
        "road_over_random": Metric(0.1, low=0.0, high=0.2),
        "saco_over_random": Metric(0.1, low=0.0, high=0.2),
        "max_sensitivity": Metric(1.6, low=1.4, high=1.7, random=1.7, centre=0.0),
        "randomisation_passed": Metric(0),
    }
    text = judge_explanations(worse)
    neither = "not significantly better than random maps"
    assert text.startswith(f"ROAD, SaCo: {neither}; ")
    assert "WARNING: under small noise, these maps are not significantly more stable than" in text
    assert "WARNING: networks with random weights give similar maps" in text
    assert judge_explanations({}) == "not evaluated"


def test_pointing_game_is_judged_by_its_gains() -> None:
    quality = QUALITY | {
        "pointing_game_over_random": Metric(0.4, low=0.3, high=0.5),
        "pointing_game_over_centre": Metric(0.1, low=-0.1, high=0.3),
    }
    assert (
        "; pointing game: better than random maps, but not significantly better than centre maps; "
        in judge_explanations(quality)
    )


def test_explanations_of_one_image_are_not_judged() -> None:
    """A single image has no interval."""
    gains = ("road_over_random", "road_over_centre", "saco_over_random", "saco_over_centre")
    single = QUALITY | dict.fromkeys(gains, Metric(0.4))
    assert (
        judge_explanations(single)
        == "maps of networks with random weights are not significantly more similar to these "
        "maps than unrelated maps are"
    )
