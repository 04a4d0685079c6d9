"""Sweeps: the right runs in the right rows, seeds together, and what is said of the optimum."""

import math

import pytest

from cifarpipe.cli.experiments import Experiment
from cifarpipe.cli.sweep import conclusions, draw_sweep, markdown, sweep_of

BASE = {
    "lr": 0.01, "seed": 0, "data.val_size": 1000, "models.vit.depth": 6, "models.cnn.depth": 8,
    "gradcam.opacity": 0.6, "report.title": "a",
}  # fmt: skip


def run(accuracy: float, name: str = "run", **changed: object) -> Experiment:
    params = BASE | {key.replace("__", "."): value for key, value in changed.items()}
    metrics = {"vit": {"accuracy": accuracy - 0.01, "val_accuracy": accuracy}}
    return Experiment(name, params, metrics)


RATES = [run(0.55, lr=0.01), run(0.50, lr=0.001), run(0.54, lr=0.003), run(0.1, lr=0.1)]


def test_runs_stand_in_the_order_of_the_value() -> None:
    found = sweep_of("vit", RATES)
    assert found.varied == ["lr"]
    assert found.table.lr.tolist() == [0.001, 0.003, 0.01, 0.1]
    assert found.table.val.tolist() == [0.5, 0.54, 0.55, 0.1]
    assert found.table.test.tolist() == pytest.approx([0.49, 0.53, 0.54, 0.09])


def test_seeds_are_one_row_with_mean_and_deviation() -> None:
    """Of 0.5, 0.52 and 0.57: mean 0.53, deviation sqrt((9 + 1 + 16) / 2) = 3.606 points."""
    runs = [run(value, seed=seed) for seed, value in enumerate((0.5, 0.52, 0.57))]
    (row,) = sweep_of("vit", [*runs, runs[0]]).table.to_dict("records")
    assert row["seeds"] == 3
    assert row["val"] == pytest.approx(0.53)
    assert row["val_std"] == pytest.approx(0.036056, abs=1e-6)
    assert row["val_high"] == pytest.approx(0.53 + 0.036056, abs=1e-6)
    assert "53.00% ± 3.61" in markdown(sweep_of("vit", runs))


def test_a_single_seed_has_wilsons_interval() -> None:
    (row,) = sweep_of("vit", [run(0.5)]).table.to_dict("records")
    assert math.isnan(row["val_std"])
    # For half of n: 0.5 ± z sqrt(n / 4 + z² / 4) / (n + z²), z = 1.96.
    half = 1.959964 * math.sqrt(1000 / 4 + 1.959964**2 / 4) / (1000 + 1.959964**2)
    assert (row["val_low"], row["val_high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_what_another_model_has_or_comes_afterwards_makes_no_setting() -> None:
    runs = [run(0.5), run(0.5, models__cnn__depth=2), run(0.5, gradcam__opacity=0.1),
            run(0.5, report__title="b")]  # fmt: skip
    found = sweep_of("vit", runs)
    assert found.varied == []
    assert found.table.seeds.tolist() == [1]
    assert sweep_of("vit", [*runs, run(0.6, models__vit__depth=7)]).varied == ["models.vit.depth"]


def test_what_seeds_scatter_is_said() -> None:
    even = [run(0.5 + seed / 100, lr=lr, seed=seed) for seed in (0, 2) for lr in (0.1, 0.2)]
    said = " ".join(conclusions(sweep_of("vit", even)))
    assert "scatters by up to 1.4 points (one standard deviation)." in said  # 2 / sqrt(2)
    assert "by luck" not in said
    assert "one seed each" not in said
    said = " ".join(conclusions(sweep_of("vit", [*even, run(0.9, lr=0.4)])))
    assert "Settings have from 1 to 2 seeds: those with few come out best by luck" in said


def test_two_parameters_make_a_grid() -> None:
    runs = [
        run(0.5 + lr + depth / 100, lr=lr, models__vit__depth=depth)
        for lr in (0.1, 0.01, 0.001)
        for depth in (4, 6)
    ]
    found = sweep_of("vit", runs)
    assert found.varied == ["lr", "models.vit.depth"]
    pairs = list(zip(found.table.lr, found.table["models.vit.depth"], strict=True))
    assert pairs == [(lr, depth) for lr in (0.001, 0.01, 0.1) for depth in (4, 6)]
    assert conclusions(found)[0].startswith(
        "vit: lr = 0.1, models.vit.depth = 6 is best, with 66.00%"
    )


def test_the_optimum_and_its_width_are_said() -> None:
    best, width, falls, *_ = conclusions(sweep_of("vit", RATES))
    assert best == (
        "vit: lr = 0.01 is best, with 55.00% on validation images (54.00% on test images, which "
        "chose nothing)."
    )
    assert width == "From lr = 0.003 to 0.01, a factor of 3.33, accuracy stays within 2 points."
    assert falls == "Beyond, it falls: by 5 points at 0.001, by 45 points at 0.1."


def test_an_optimum_at_the_edge_asks_for_more() -> None:
    said = " ".join(conclusions(sweep_of("vit", [run(0.5, lr=0.001), run(0.6, lr=0.01)])))
    assert "No other lr comes within 2 points of it." in said
    assert "The best lr is the highest one tried: try further." in said


def test_the_choice_is_by_validation_and_none_is_made_without() -> None:
    fools = run(0.5, lr=0.001)
    fools.metrics["vit"]["accuracy"] = 0.99  # type: ignore[index]
    assert conclusions(sweep_of("vit", [fools, run(0.6)]))[0].startswith("vit: lr = 0.01 is best")
    for each in (blind := [run(0.5, lr=0.1), run(0.6)]):
        each.metrics["vit"]["val_accuracy"] = None  # type: ignore[index]
    (said,) = conclusions(sweep_of("vit", blind))
    assert "no setting can be chosen without looking at the test images" in said
    assert "| 0.1 | 1 | – | 49.00% |" in markdown(sweep_of("vit", blind))


def test_nothing_is_said_of_neighbours_that_were_not_tried() -> None:
    """The best depth has one rate alone."""
    runs = [*(run(0.5, lr=lr) for lr in (0.01, 0.03, 0.1)), run(0.6, lr=0.03, models__vit__depth=8)]
    said = " ".join(conclusions(sweep_of("vit", runs)))
    assert "models.vit.depth = 8 is best" in said
    assert not [word for word in ("No other", "From", "Beyond", "try further") if word in said]


def test_words_have_no_order() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule="onecycle")]
    said = " ".join(conclusions(sweep_of("vit", runs)))
    assert "try further" not in said
    assert "No other" not in said


def test_a_whole_number_is_the_number_and_a_truth_is_none() -> None:
    found = sweep_of("vit", [run(0.5, lr=1), run(0.6, lr=1.0, seed=1), run(0.7, lr=2)])
    assert found.table.seeds.tolist() == [2, 1]
    said = " ".join(
        conclusions(sweep_of("vit", [run(0.5, models__vit__depth=d) for d in (2, 4, 8)]))
    )
    assert "From models.vit.depth = 2 to 8, a factor of 4," in said
    truths = [run(0.5, models__vit__ema=value) for value in (False, True)]
    assert sweep_of("vit", truths).table["models.vit.ema"].tolist() == ["false", "true"]


def test_nothing_varied_is_said() -> None:
    assert conclusions(sweep_of("vit", [run(0.5)])) == [
        "vit: no parameter differs, so there is nothing to choose."
    ]


def test_the_figure_has_a_tick_for_each_value_and_a_line_for_each_other_setting() -> None:
    runs = [run(0.5 + lr, lr=lr, models__vit__depth=depth) for lr in (0.1, 0.01, 0.001)
            for depth in (4, 6)]  # fmt: skip
    (axes,) = draw_sweep(sweep_of("vit", runs)).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(named) == sorted(
        f"models.vit.depth = {depth} {kind}" for depth in (4, 6) for kind in ("validation", "test")
    )
    validation = next(
        c for c in axes.containers if c.get_label() == "models.vit.depth = 4 validation"
    )
    assert validation.lines[0].get_ydata().tolist() == pytest.approx([0.501, 0.51, 0.6])


def test_the_figure_of_words_has_them_as_ticks() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule="onecycle")]
    (axes,) = draw_sweep(sweep_of("vit", runs)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cosine", "onecycle"]


def test_values_that_are_no_numbers_are_settings_too() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule=None),
            run(0.7, models__vit__schedule=[1, 2])]  # fmt: skip
    found = sweep_of("vit", runs)
    assert found.table["models.vit.schedule"].tolist() == ["[1, 2]", "cosine", "null"]
    assert "models.vit.schedule = [1, 2] is best" in conclusions(found)[0]
