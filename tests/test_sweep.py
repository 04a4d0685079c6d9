"""Sweeps: runs grouped into settings, and the conclusions about the best setting."""

import math

import pytest

from cifarpipe.cli.experiments import Experiment
from cifarpipe.cli.sweep.conclusions import conclusions
from cifarpipe.cli.sweep.output import draw_sweep, markdown
from cifarpipe.cli.sweep.settings import make_sweep

BASE = {
    "lr": 0.01, "seed": 0, "data.val_size": 1000, "models.vit.depth": 6, "models.cnn.depth": 8,
    "gradcam.opacity": 0.6, "report.title": "a",
}  # fmt: skip


def run(accuracy: float, name: str = "run", **changed: object) -> Experiment:
    params = BASE | {key.replace("__", "."): value for key, value in changed.items()}
    metrics = {"vit": {"accuracy": accuracy - 0.01, "val_accuracy": accuracy}}
    return Experiment(name, params, metrics)


LEARNING_RATES = [run(0.55, lr=0.01), run(0.50, lr=0.001), run(0.54, lr=0.003), run(0.1, lr=0.1)]


def conclusions_of(runs: list[Experiment]) -> str:
    return " ".join(conclusions(make_sweep("vit", runs)))


def test_rows_are_sorted_by_value() -> None:
    found = make_sweep("vit", LEARNING_RATES)
    assert found.varied == ["lr"]
    assert found.table.lr.tolist() == [0.001, 0.003, 0.01, 0.1]
    assert found.table.val.tolist() == [0.5, 0.54, 0.55, 0.1]
    assert found.table.test.tolist() == pytest.approx([0.49, 0.53, 0.54, 0.09])


def test_seeds_are_averaged_in_one_row() -> None:
    """Of 0.5, 0.52 and 0.57: mean 0.53, deviation sqrt((9 + 1 + 16) / 2) = 3.606 points."""
    runs = [run(value, seed=seed) for seed, value in enumerate((0.5, 0.52, 0.57))]
    (row,) = make_sweep("vit", [*runs, runs[0]]).table.to_dict("records")
    assert row["seeds"] == 3
    assert row["val"] == pytest.approx(0.53)
    assert row["val_std"] == pytest.approx(0.036056, abs=1e-6)
    assert row["val_high"] == pytest.approx(0.53 + 0.036056, abs=1e-6)
    assert "53.00% ± 3.61" in markdown(make_sweep("vit", runs))


def test_single_seed_has_wilson_interval() -> None:
    (row,) = make_sweep("vit", [run(0.5)]).table.to_dict("records")
    assert math.isnan(row["val_std"])
    # For half of n: 0.5 ± z sqrt(n / 4 + z² / 4) / (n + z²), z = 1.96.
    half = 1.959964 * math.sqrt(1000 / 4 + 1.959964**2 / 4) / (1000 + 1.959964**2)
    assert (row["val_low"], row["val_high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


def test_unrelated_parameters_make_no_setting() -> None:
    runs = [run(0.5), run(0.5, models__cnn__depth=2), run(0.5, gradcam__opacity=0.1),
            run(0.5, report__title="b")]  # fmt: skip
    found = make_sweep("vit", runs)
    assert found.varied == []
    assert found.table.seeds.tolist() == [1]
    assert make_sweep("vit", [*runs, run(0.6, models__vit__depth=7)]).varied == ["models.vit.depth"]


def test_standard_deviation_over_seeds_is_reported() -> None:
    even = [run(0.5 + seed / 100, lr=lr, seed=seed) for seed in (0, 2) for lr in (0.1, 0.2)]
    text = conclusions_of(even)
    assert "over seeds is up to 1.4 points." in text  # 2 / sqrt(2)
    assert "by chance" not in text
    assert "single-seed" not in text
    text = conclusions_of([*even, run(0.9, lr=0.4)])
    assert "Settings have 1 to 2 seeds; a setting with few seeds is more likely" in text


def test_two_parameters_give_a_grid() -> None:
    runs = [
        run(0.5 + lr + depth / 100, lr=lr, models__vit__depth=depth)
        for lr in (0.1, 0.01, 0.001)
        for depth in (4, 6)
    ]
    found = make_sweep("vit", runs)
    assert found.varied == ["lr", "models.vit.depth"]
    pairs = list(zip(found.table.lr, found.table["models.vit.depth"], strict=True))
    assert pairs == [(lr, depth) for lr in (0.001, 0.01, 0.1) for depth in (4, 6)]
    assert conclusions(found)[0].startswith(
        "vit: lr = 0.1, models.vit.depth = 6 has the highest validation accuracy, 66.00%"
    )


def test_best_value_and_its_range_are_reported() -> None:
    best, width, drops, *_ = conclusions(make_sweep("vit", LEARNING_RATES))
    assert best == (
        "vit: lr = 0.01 has the highest validation accuracy, 55.00% (test accuracy 54.00%, which "
        "was not used to choose)."
    )
    assert width == "From lr = 0.003 to 0.01, a factor of 3.33, accuracy stays within 2 points."
    assert drops == "Accuracy is lower by 5 points at 0.001, by 45 points at 0.1."


def test_sampling_error_of_single_seeds_is_reported() -> None:
    """Of 1000 images half are correct: ± 3.1 points for one run, × sqrt(2) = 4.4 between two."""
    text = conclusions_of([run(0.5, lr=0.1), run(0.1)])
    assert "Differences of up to 4.4 points between single-seed runs" in text


@pytest.mark.parametrize(("best", "end"), [(0.01, "highest"), (0.001, "lowest")])
def test_best_value_at_an_end_gives_advice(best: float, end: str) -> None:
    text = conclusions_of([run(0.6 if lr == best else 0.5, lr=lr) for lr in (0.001, 0.01)])
    assert "No other lr is within 2 points of the best." in text
    assert f"The best lr is the {end} one tried: try further values." in text


def test_good_values_apart_from_the_best_are_named() -> None:
    text = conclusions_of([run(0.5, lr=0.001), run(0.4, lr=0.003), run(0.505, lr=0.01)])
    assert "No adjacent lr is within 2 points of the best. Also within 2 points: 0.001." in text
    values = {1: 0.5, 2: 0.5, 3: 0.2, 4: 0.505, 5: 0.51}
    text = conclusions_of([run(accuracy, lr=lr) for lr, accuracy in values.items()])
    assert "accuracy stays within 2 points. Also within 2 points: 1, 2." in text


def test_best_value_inside_gives_no_advice() -> None:
    assert "try further" not in conclusions_of(LEARNING_RATES)


def test_equal_best_results_are_tied() -> None:
    runs = [run(0.6, lr=0.001), run(0.5, lr=0.01), run(0.6, lr=0.1)]
    tied, width, *others = conclusions(make_sweep("vit", runs))
    assert tied == "vit: tied for the highest validation accuracy, 60.00%: lr = 0.001; lr = 0.1."
    assert width == (
        "From lr = 0.001 to 0.1, a factor of 100, "
        "some values in between are worse by more than 2 points."
    )
    assert not [text for text in others if "try further" in text or "has the highest" in text]


@pytest.mark.parametrize(
    "accuracies", [(0.6, 0.6, 0.3), (0.3, 0.6, 0.6), (0.6, 0.6, 0.6), (0.3, 0.6, 0.6, 0.3)]
)
def test_ties_give_no_advice_to_search_beyond(accuracies: tuple[float, ...]) -> None:
    runs = [run(accuracy, lr=10.0**-i) for i, accuracy in enumerate(accuracies)]
    text = conclusions_of(runs)
    assert "vit: tied for the highest validation accuracy, 60.00%: " in text
    assert text.count("lr = ") == accuracies.count(0.6) + 1  # of each setting, and of the range
    assert "try further" not in text


def test_ties_of_several_parameters_are_listed() -> None:
    runs = [
        run(0.6, lr=0.1, models__vit__depth=4),
        run(0.5, lr=0.1, models__vit__depth=6),
        run(0.6, lr=0.2, models__vit__depth=6),
        run(0.5, lr=0.2, models__vit__depth=4),
    ]
    text = conclusions_of(runs)
    assert text.startswith(
        "vit: tied for the highest validation accuracy, 60.00%: "
        "lr = 0.1, models.vit.depth = 4; lr = 0.2, models.vit.depth = 6."
    )
    assert "within" not in text  # which of the two would be meant?


def test_width_of_a_grid_names_what_is_equal() -> None:
    runs = [
        run(accuracy, lr=lr, models__vit__depth=depth)
        for depth, accuracies in ((4, (0.3, 0.6, 0.5)), (6, (0.2, 0.2, 0.2)))
        for lr, accuracy in zip((0.1, 0.2, 0.4), accuracies, strict=True)
    ]
    text = conclusions_of(runs)
    assert "At models.vit.depth = 4: no other lr is within 2 points of the best." in text
    assert "Accuracy is lower by 30 points at 0.1, by 10 points at 0.4." in text


def test_setting_is_chosen_by_validation_alone() -> None:
    misleading = run(0.5, lr=0.001)
    misleading.metrics["vit"]["accuracy"] = 0.99  # type: ignore[index]
    assert conclusions_of([misleading, run(0.6)]).startswith("vit: lr = 0.01 has the highest")


def test_nothing_is_chosen_without_validation_split() -> None:
    runs = [run(0.5, lr=0.1), run(0.6)]
    for each in runs:
        each.metrics["vit"]["val_accuracy"] = None  # type: ignore[index]
    (text,) = conclusions(make_sweep("vit", runs))
    assert "no setting can be chosen without using the test images" in text
    assert "| 0.1 | 1 | – | 49.00% |" in markdown(make_sweep("vit", runs))


def test_untried_neighbours_are_not_mentioned() -> None:
    """The best depth was tried with one learning rate only."""
    runs = [*(run(0.5, lr=lr) for lr in (0.01, 0.03, 0.1)), run(0.6, lr=0.03, models__vit__depth=8)]
    text = conclusions_of(runs)
    assert "models.vit.depth = 8 has the highest" in text
    assert not [word for word in ("No other", "From", "is lower", "try further") if word in text]


def test_text_values_have_no_range() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule="onecycle")]
    text = conclusions_of(runs)
    assert "try further" not in text
    assert "No other" not in text


def test_equal_integer_and_float_are_one_setting() -> None:
    found = make_sweep("vit", [run(0.5, lr=1), run(0.6, lr=1.0, seed=1), run(0.7, lr=2)])
    assert found.table.seeds.tolist() == [2, 1]
    text = conclusions_of([run(0.5, models__vit__depth=d) for d in (2, 4, 8)])
    assert "From models.vit.depth = 2 to 8, a factor of 4," in text


def test_booleans_are_not_numbers() -> None:
    runs = [run(0.5, models__vit__ema=value) for value in (False, True)]
    assert make_sweep("vit", runs).table["models.vit.ema"].tolist() == ["false", "true"]


def test_without_varied_parameter_nothing_is_chosen() -> None:
    assert conclusions(make_sweep("vit", [run(0.5)])) == [
        "vit: no parameter differs, so there is nothing to choose."
    ]


def test_figure_has_tick_per_value_line_per_setting() -> None:
    runs = [run(0.5 + lr, lr=lr, models__vit__depth=depth) for lr in (0.1, 0.01, 0.001)
            for depth in (4, 6)]  # fmt: skip
    (axes,) = draw_sweep(make_sweep("vit", runs)).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == sorted(
        f"models.vit.depth = {depth} {kind}" for depth in (4, 6) for kind in ("validation", "test")
    )
    validation = next(
        c for c in axes.containers if c.get_label() == "models.vit.depth = 4 validation"
    )
    assert validation.lines[0].get_ydata().tolist() == pytest.approx([0.501, 0.51, 0.6])


def test_figure_has_text_values_as_ticks() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule="onecycle")]
    (axes,) = draw_sweep(make_sweep("vit", runs)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cosine", "onecycle"]


def test_lists_and_absent_keys_are_settings() -> None:
    runs = [run(0.5, models__vit__schedule="cosine"), run(0.6, models__vit__schedule=None),
            run(0.7, models__vit__schedule=[1, 2])]  # fmt: skip
    found = make_sweep("vit", runs)
    assert found.table["models.vit.schedule"].tolist() == ["[1, 2]", "cosine", "off"]
    assert "models.vit.schedule = [1, 2] has the highest" in conclusions(found)[0]
