"""Check what is claimed of the demo.

Its models learn what a linear classifier can't. Their maps point at the object more often than
chance or the middle of the picture would, know which pixels matter, and change with the weights.
Run `make demo` first, then `python -m benchmarks.demo_claims`. Prints a table; exits 1 if a claim
does not hold.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cifarpipe.results.intervals import wilson_interval
from cifarpipe.results.tables import read_figures

DEMO = Path(".demo")
LEAST_ACCURACY = 0.75
MOST_LINEAR = 0.50
LEAST_POINTING = 0.6
SHOWN = (
    "pointing_game", "pointing_game_low", "pointing_game_centre", "pointing_game_random",
    "road_over_random", "road_over_random_low", "randomisation_correlation",
)  # fmt: skip
STRENGTHS = (1e-3, 1e-2, 1e-1)  # of the linear classifier's inverse regularisation


def linear_accuracy(folder: Path) -> float:
    """Return the best test accuracy of logistic regression on raw pixels over some strengths."""
    pixels, labels = {}, {}
    for split in ("train", "test"):
        images = np.load(folder / f"{split}_images.npy")
        pixels[split] = images.reshape(len(images), -1) / 255.0
        labels[split] = np.load(folder / f"{split}_labels.npy")
    middle = pixels["train"].mean(axis=0)
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=100)
            model.fit(pixels["train"] - middle, labels["train"])
            scores.append(model.score(pixels["test"] - middle, labels["test"]))
    return max(scores)


def explanation_faults(cam: dict[str, float]) -> list[str]:
    """Say what is not as claimed of a model's maps."""
    faults = []
    images = int(cam["pointing_game_images"])
    ignorant = max(cam["pointing_game_centre"], cam["pointing_game_random"])
    if cam["pointing_game"] < LEAST_POINTING:
        faults.append(f"points at the object in {cam['pointing_game']:.1%} only")
    if cam["pointing_game_low"] <= wilson_interval(round(ignorant * images), images)[1]:
        faults.append("points at the object no more often than chance or the middle")
    if cam["road_over_random_low"] <= 0:
        faults.append("knows the pixels that matter no better than random maps")
    if not cam["randomisation_passed"]:
        faults.append("has much the same maps with random weights")
    return faults


def main() -> int:
    """Print the table and return the exit code."""
    faults = []
    linear = linear_accuracy(DEMO / "data/prepared")
    print(f"{'':24}" + "".join(f"{head[:21]:>22}" for head in ("accuracy", *SHOWN)))
    print(f"{'linear, raw pixels':24}{linear:22.3f}")
    if linear > MOST_LINEAR:
        faults.append(f"a linear classifier reaches {linear:.1%}")
    for folder in sorted((DEMO / "reports/models").iterdir()):
        name = folder.name
        accuracy = json.loads((folder / "metrics.json").read_text())[name]["accuracy"]
        cam = read_figures(folder / "gradcam.csv")
        figures = [accuracy, *(cam[key] for key in SHOWN)]
        print(f"{name:24}" + "".join(f"{figure:22.3f}" for figure in figures))
        if accuracy < LEAST_ACCURACY:
            faults.append(f"{name} reaches {accuracy:.1%} only")
        faults += [f"{name} {fault}" for fault in explanation_faults(cam)]
    for fault in faults:
        print(f"not as claimed: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
