"""What is said of models: in what order they stand, who leads, what the maps are worth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifarpipe.report.results import judge_explanations, leaderboard, verdict
from tests.support.report_setting import GRADCAM, make_results, results_of


def test_the_leaderboard_is_in_order_and_complete(tmp_path: Path) -> None:
    results = [
        make_results(tmp_path, name, right=right)
        for name, right in (("low", 0.4), ("high", 0.9), ("middle", 0.7))
    ]
    board = leaderboard(results)
    assert board.model.tolist() == ["high", "middle", "low"]
    assert board.errors.tolist() == [8, 24, 48]
    assert board.accuracy.tolist() == [0.9, 0.7, 0.4]
    assert board.images.tolist() == [80] * 3
    assert board.kept_epoch.tolist() == [2] * 3
    assert board.epochs.tolist() == [3] * 3
    # Nothing in it is a type of numpy's that other tools can't read.
    assert json.loads(board.to_json(orient="records"))[0]["model"] == "high"


def test_the_accuracy_with_mirror_images_stands_beside_where_there_is_one(tmp_path: Path) -> None:
    without, asked = (make_results(tmp_path, name, right=0.5) for name in ("without", "asked"))
    assert "tta_accuracy" not in leaderboard([without])
    asked = replace(asked, metrics=asked.metrics | {"tta_accuracy": 0.6})
    board = leaderboard([without, asked])
    assert board.model.tolist() == ["without", "asked"]  # it decides nothing
    assert np.isnan(board.tta_accuracy[0])
    assert board.tta_accuracy[1] == 0.6


def test_models_that_score_the_same_keep_the_order_of_the_parameters(tmp_path: Path) -> None:
    results = [make_results(tmp_path, name) for name in ("c", "a", "b")]
    assert leaderboard(results).model.tolist() == ["c", "a", "b"]


def test_tables_that_do_not_tell_of_the_same_errors_stop_the_report(tmp_path: Path) -> None:
    model = make_results(tmp_path, "m")
    confusion = model.confusion.copy()
    confusion.loc[0, "images"] += 1
    confusion.loc[1, "images"] -= 1
    table = model.predictions.copy()
    table.loc[0, "predicted"] = table.true[1]
    for change in (
        {"metrics": model.metrics | {"errors": 9}},
        {"confusion": confusion},
        {"predictions": table},
    ):
        with pytest.raises(AssertionError, match="m: metrics, confusions and predictions"):
            replace(model, **change)
    with pytest.raises(AssertionError, match="m: maps are missing"):
        replace(model, true_maps=model.true_maps[1:])


def test_top_confusions_are_the_most_frequent_ones(tmp_path: Path) -> None:
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


def make_board(*right: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return a leaderboard and hits of models that are right in so many of the same 100 images."""
    rows = [
        {"model": f"m{i}", "accuracy": n / 100, "accuracy_low": 0.8, "accuracy_high": 0.95}
        for i, n in enumerate(right)
    ]
    return (
        pd.DataFrame(rows).assign(images=100),
        {f"m{i}": np.arange(100) < n for i, n in enumerate(right)},
    )


def test_the_verdict_names_a_lead() -> None:
    """Six images more and none less: p = 2 / 2**6 = 0.03."""
    assert verdict(*make_board(90, 84, 20)) == (
        "m0 leads with 90.00% of 100 test images right (95% interval 80.00% to 95.00%)."
    )


def test_the_verdict_admits_a_tie() -> None:
    """Five images more: p = 2 / 2**5 = 0.06."""
    text = verdict(*make_board(90, 85, 85, 20))
    assert text.startswith("m0 has 90.00%")
    assert text.endswith("; m1 and m2 can't be told from it: a tie (McNemar's test, 5%).")
    assert "m3" not in text


def test_models_of_equal_accuracy_that_err_elsewhere_are_a_tie() -> None:
    board, right = make_board(90, 90)
    right["m1"] = right["m1"][::-1]
    assert "a tie" in verdict(board, right)


def test_a_single_model_leads_nobody() -> None:
    assert verdict(*make_board(90)).startswith("m0 has 90.00% of 100 test images right")


def test_explanations_are_judged_by_their_intervals() -> None:
    assert judge_explanations(GRADCAM) == (
        "better than random maps and than always looking at the middle; "
        "other weights give other maps"
    )
    centre = GRADCAM | {"road_over_centre_low": -0.01}
    assert "better than random maps, not than always looking" in judge_explanations(centre)
    worse = centre | {"road_over_random_low": 0.0, "randomisation_passed": 0}
    said = judge_explanations(worse)
    assert said.startswith("not better than random maps at naming the pixels that matter")
    assert "WARNING: random weights give much the same maps" in said
    mask = {"pointing_game_centre": 0.3, "pointing_game_random": 0.1}
    assert "; points at the object" in judge_explanations(
        GRADCAM | mask | {"pointing_game_low": 0.31}
    )
    assert "; does not point at the object" in judge_explanations(
        GRADCAM | mask | {"pointing_game_low": 0.3}
    )
    assert judge_explanations({}) == "not put to the test"
