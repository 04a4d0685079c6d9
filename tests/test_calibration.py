"""Calibration: by hand, against naive loops, and against networks whose truth is known."""

import numpy as np
import pytest
import scipy.special

from cifarpipe.evaluation.calibration import (
    Floats,
    Labels,
    calibration_error,
    equal_mass_calibration_error,
    fit_temperature,
    reliability_table,
)


def draw(n: int, k: int = 5, seed: int = 0) -> tuple[np.ndarray, Labels]:
    """Return logits and labels drawn from their very probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k)).astype(np.float32)
    chances = scipy.special.softmax(logits.astype(np.float64), axis=1)
    labels = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, labels


def softmax(logits: np.ndarray) -> Floats:
    return scipy.special.softmax(logits.astype(np.float64), axis=1)


def naive_calibration_error(probabilities: Floats, labels: Labels, bins: int) -> float:
    error = 0.0
    for i in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if i / bins < row.max() <= (i + 1) / bins
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error


def naive_equal_mass_error(probabilities: Floats, labels: Labels, bins: int) -> float:
    rows = sorted(
        zip(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, strict=True),
        key=lambda row: row[0],
    )
    error = 0.0
    for i in range(bins):
        more = len(rows) % bins  # the first bins hold one more
        size = len(rows) // bins
        start = i * size + min(i, more)
        part = np.array(rows[start : start + size + (i < more)])
        if len(part):
            error += len(part) / len(rows) * abs(part[:, 0].mean() - part[:, 1].mean())
    return error


@pytest.mark.parametrize("count", [7, 45, 301])
def test_equal_mass_error_is_the_naive_loops(count: int) -> None:
    logits, labels = draw(count)
    ours = equal_mass_calibration_error(softmax(logits), labels, 15)
    assert ours == pytest.approx(naive_equal_mass_error(softmax(logits), labels, 15))


def test_calibration_error_of_four_images_by_hand() -> None:
    """Bins of 0.2, closed above: 0.6 lies alone, 0.7 lies alone, 0.9 and 0.95 lie together."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 0])  # right, wrong, right, wrong
    by_hand = (abs(1 - 0.6) + abs(0 - 0.7) + abs(1 + 0 - 0.9 - 0.95)) / 4
    assert by_hand == pytest.approx(0.4875)
    assert calibration_error(probabilities, labels, 5) == pytest.approx(by_hand)
    # In one bin over- and underconfidence cancel out.
    assert calibration_error(probabilities, labels, 1) == pytest.approx(abs(2 - 3.15) / 4)


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_error_is_the_naive_loops(bins: int) -> None:
    logits, labels = draw(300)
    ours = calibration_error(softmax(logits), labels, bins)
    assert ours == pytest.approx(naive_calibration_error(softmax(logits), labels, bins))


def test_the_certain_are_calibrated_only_if_right() -> None:
    certain = np.eye(3)
    assert calibration_error(certain, np.array([0, 1, 2]), 15) == 0
    assert calibration_error(certain, np.array([1, 2, 0]), 15) == 1


def test_equal_mass_error_by_hand() -> None:
    """Two bins of two images, by confidence: 0.6 and 0.7, 0.9 and 0.95."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.05, 0.95]])
    labels = np.array([0, 1, 1, 0])  # right, wrong, right, wrong
    by_hand = (abs(1 - 0.6 - 0.7) + abs(1 - 0.9 - 0.95)) / 4
    shuffled = np.array([2, 0, 3, 1])
    found = equal_mass_calibration_error(probabilities[shuffled], labels[shuffled], 2)
    assert found == pytest.approx(by_hand)
    # More bins than images: each stands alone.
    alone = (0.4 + 0.7 + 0.1 + 0.95) / 4
    assert equal_mass_calibration_error(probabilities, labels, 15) == pytest.approx(alone)


def test_who_means_what_they_say_is_calibrated() -> None:
    logits, labels = draw(50_000)
    for error in (calibration_error, equal_mass_calibration_error):
        assert error(softmax(logits), labels, 15) < 0.01
        assert error(softmax(3 * logits), labels, 15) > 0.1


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 12.0])
def test_the_temperature_is_found(temperature: float) -> None:
    logits, labels = draw(40_000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.02)


def test_no_images_leave_the_temperature_alone() -> None:
    assert fit_temperature(np.empty((0, 5), np.float32), np.empty(0, np.int64)) == 1.0


def test_the_always_right_get_a_finite_temperature() -> None:
    sure = np.eye(4, dtype=np.float32) * 5
    assert 0.04 < fit_temperature(sure, np.arange(4)) < 1


def test_the_reliability_table_holds_all_images_and_the_error() -> None:
    logits, labels = draw(3000)
    chances = softmax(2 * logits)
    table = reliability_table(chances, labels, 10)
    assert table.images.sum() == 3000
    assert (table.confidence > table.low).all()
    assert (table.confidence <= table.high).all()
    gaps = (table.accuracy - table.confidence).abs() * table.images / 3000
    assert gaps.sum() == pytest.approx(calibration_error(chances, labels, 10), abs=1e-4)
    assert ((table.accuracy_low <= table.accuracy) & (table.accuracy <= table.accuracy_high)).all()
