"""Calibration compared with cases by hand, naive loops and known probabilities."""

import numpy as np
import pytest
import scipy.stats

from cifarpipe.evaluation.calibration import (
    MAX_TEMPERATURE,
    calibration_error,
    equal_mass_calibration_error,
    fit_temperature,
    reliability_table,
)
from tests.support.logits import softmax
from tests.support.naive_calibration import naive_calibration_error, naive_equal_mass_error


def draw_calibrated(n: int, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, and labels drawn with the probabilities of these logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k)).astype(np.float32)
    labels = (softmax(logits).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("count", [7, 45, 301])
def test_equal_mass_error_equals_naive_loop(count: int) -> None:
    logits, labels = draw_calibrated(count)
    ours = equal_mass_calibration_error(softmax(logits), labels, 15)
    assert ours == pytest.approx(naive_equal_mass_error(softmax(logits), labels, 15))


def test_calibration_error_of_four_images_by_hand() -> None:
    """Bins of width 0.2, closed above: one with 0.6, one with 0.7, one with 0.9 and 0.95."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 0])  # correct, wrong, correct, wrong
    by_hand = (abs(1 - 0.6) + abs(0 - 0.7) + abs(1 + 0 - 0.9 - 0.95)) / 4
    assert by_hand == pytest.approx(0.4875)
    assert calibration_error(probabilities, labels, 5) == pytest.approx(by_hand)
    # Within one bin, overconfidence and underconfidence cancel.
    assert calibration_error(probabilities, labels, 1) == pytest.approx(abs(2 - 3.15) / 4)


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_error_equals_naive_loop(bins: int) -> None:
    logits, labels = draw_calibrated(300)
    ours = calibration_error(softmax(logits), labels, bins)
    assert ours == pytest.approx(naive_calibration_error(softmax(logits), labels, bins))


def test_certain_predictions_are_calibrated_only_if_correct() -> None:
    certain = np.eye(3)
    assert calibration_error(certain, np.array([0, 1, 2]), 15) == 0
    assert calibration_error(certain, np.array([1, 2, 0]), 15) == 1


def test_equal_mass_error_by_hand() -> None:
    """Two bins of two images, by confidence: 0.6 and 0.7, 0.9 and 0.95."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 0])  # correct, wrong, correct, wrong
    by_hand = (abs(1 - 0.6 - 0.7) + abs(1 - 0.9 - 0.95)) / 4
    shuffled = np.array([2, 0, 3, 1])
    found = equal_mass_calibration_error(probabilities[shuffled], labels[shuffled], 2)
    assert found == pytest.approx(by_hand)
    # With more bins than images, each image has its own.
    single = (0.4 + 0.7 + 0.1 + 0.95) / 4
    assert equal_mass_calibration_error(probabilities, labels, 15) == pytest.approx(single)


def test_true_probabilities_are_calibrated() -> None:
    logits, labels = draw_calibrated(50_000)
    for error in (calibration_error, equal_mass_calibration_error):
        assert error(softmax(logits), labels, 15) < 0.01
        assert error(softmax(3 * logits), labels, 15) > 0.1


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 12.0])
def test_known_temperature_is_found(temperature: float) -> None:
    logits, labels = draw_calibrated(40_000)
    found = fit_temperature(logits * temperature, labels)
    assert found.value == pytest.approx(temperature, rel=0.02)
    assert found.low < temperature < found.high
    assert found.high / found.low < 1.05


@pytest.mark.parametrize("shape", [(0, 5), (20, 1)])
def test_temperature_is_unknown_without_images_or_with_one_class(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape[0], np.int64)
    assert fit_temperature(np.ones(shape, np.float32), labels) is None


def test_perfect_predictions_have_a_finite_temperature() -> None:
    found = fit_temperature(np.eye(4, dtype=np.float32) * 5, np.arange(4))
    assert 0.04 < found.value < 1
    assert found.low == pytest.approx(1 / MAX_TEMPERATURE)


@pytest.mark.parametrize("count", [60, 400])
def test_interval_of_the_temperature_covers_it(count: int) -> None:
    """Of 200 calibrated networks, some 190 intervals contain 1."""
    covered = 0
    for seed in range(200):
        found = fit_temperature(*draw_calibrated(count, seed=seed))
        assert found.low < found.value < found.high
        covered += found.low < 1 < found.high
    assert 180 <= covered <= 199


def test_interval_of_the_temperature_is_that_of_a_likelihood_ratio() -> None:
    logits, labels = draw_calibrated(300)
    found = fit_temperature(logits, labels)

    def log_likelihood(temperature: float) -> float:
        return float(np.log(softmax(logits / temperature)[np.arange(300), labels]).sum())

    best = log_likelihood(found.value)
    for end in (found.low, found.high):
        excess = 2 * (best - log_likelihood(end))
        assert scipy.stats.chi2.sf(excess, 1) == pytest.approx(0.05, abs=1e-3)


def test_equal_mass_error_does_not_depend_on_the_order_of_equal_confidences() -> None:
    """A constant prediction with the confidence of its accuracy is calibrated."""
    probabilities = np.full((1000, 10), 0.1)
    by_class = np.repeat(np.arange(10), 100)
    assert equal_mass_calibration_error(probabilities, by_class, 15) == pytest.approx(0)
    mixed = np.random.default_rng(0).permutation(by_class)
    assert equal_mass_calibration_error(probabilities, mixed, 15) == pytest.approx(0)


def test_reliability_table_sums_to_calibration_error() -> None:
    logits, labels = draw_calibrated(3000)
    probabilities = softmax(2 * logits)
    table = reliability_table(probabilities, labels, 10)
    assert table.images.sum() == 3000
    assert (table.confidence > table.low).all()
    assert (table.confidence <= table.high).all()
    gaps = (table.accuracy - table.confidence).abs() * table.images / 3000
    assert gaps.sum() == pytest.approx(calibration_error(probabilities, labels, 10), abs=1e-4)
    assert ((table.accuracy_low <= table.accuracy) & (table.accuracy <= table.accuracy_high)).all()
