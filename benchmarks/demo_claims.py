"""Check the claims about the demo: `python -m benchmarks.demo_claims`, after `make demo`.

The models learn more than a linear classifier can. Their maps point at the object more often than
random maps and centre maps, rank pixels by importance better than random maps, and change if the
weights are randomised. Prints a table; the exit code is 1 if a claim is not met.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cifarpipe.results.metrics import Metric, Metrics, read_metrics

DEMO = Path(".demo")
MIN_ACCURACY = 0.75
MAX_LINEAR_ACCURACY = 0.50
MIN_POINTING_GAME = 0.5  # most maps point at the object
SHOWN = (
    ("pointing_game", "value"), ("pointing_game_over_random", "low"),
    ("pointing_game_over_centre", "low"), ("road_over_random", "value"),
    ("road_over_random", "low"), ("randomisation_abs_correlation", "value"),
)  # fmt: skip
STRENGTHS = (1e-3, 1e-2, 1e-1)  # of the linear classifier's inverse regularisation


def linear_accuracy(folder: Path) -> float:
    """Return the best test accuracy of logistic regression on raw pixels over some strengths."""
    pixels, labels = {}, {}
    for split in ("train", "test"):
        images = np.load(folder / f"{split}_images.npy")
        pixels[split] = images.reshape(len(images), -1) / 255.0
        labels[split] = np.load(folder / f"{split}_labels.npy")
    mean = pixels["train"].mean(axis=0)
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=100)
            model.fit(pixels["train"] - mean, labels["train"])
            scores.append(model.score(pixels["test"] - mean, labels["test"]))
    return max(scores)


def unmet_claims(quality: Metrics) -> list[str]:
    """Return which claims about a model's explanations are not met, a line each."""
    pointing, gain = quality["pointing_game"], quality["road_over_random"]
    unmet = []
    if pointing.value < MIN_POINTING_GAME:
        unmet.append(f"pointing game {pointing.value:.1%}, below {MIN_POINTING_GAME:.0%}")
    unmet += [
        f"pointing game not clearly above that of {baseline} maps"
        for baseline in ("random", "centre")
        if low_end(quality[f"pointing_game_over_{baseline}"]) <= 0
    ]
    if low_end(gain) <= 0:
        unmet.append("ROAD not clearly above that of random maps")
    if quality.get("randomisation_passed") != Metric(1):
        unmet.append("maps not clearly different with randomised weights")
    return unmet


def low_end(metric: Metric) -> float:
    """Return the lower end of a metric's interval."""
    assert metric.low is not None
    return metric.low


def main() -> int:
    """Print the table and return the exit code."""
    unmet = []
    linear = linear_accuracy(DEMO / "data/prepared")
    heads = [name if field == "value" else f"{name} {field}" for name, field in SHOWN]
    print(f"{'':20}" + "".join(f"{head:>31}" for head in ("accuracy", *heads)))
    print(f"{'linear, raw pixels':20}{linear:31.3f}")
    if linear > MAX_LINEAR_ACCURACY:
        unmet.append(f"a linear classifier's accuracy is {linear:.1%}")
    for folder in sorted((DEMO / "reports/models").iterdir()):
        name = folder.name
        accuracy = json.loads((folder / "metrics.json").read_text())[name]["accuracy"]
        quality = read_metrics(folder / "gradcam.csv")
        values = [accuracy, *(getattr(quality[metric], field) for metric, field in SHOWN)]
        print(f"{name:20}" + "".join(f"{value:31.3f}" for value in values))
        if accuracy < MIN_ACCURACY:
            unmet.append(f"{name}: accuracy {accuracy:.1%}, below {MIN_ACCURACY:.0%}")
        unmet += [f"{name}: {claim}" for claim in unmet_claims(quality)]
    for claim in unmet:
        print(f"claim not met: {claim}", file=sys.stderr)
    return 1 if unmet else 0


if __name__ == "__main__":
    sys.exit(main())
