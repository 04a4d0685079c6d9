"""Check what is claimed of the demo.

Its models learn what a linear classifier can't, and their maps point at the object more often than
the middle of the picture would. Run `make demo` first, then `python -m benchmarks.demo_claims`.
Prints a table; exits 1 if a claim does not hold.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

DEMO = Path(".demo")
LEAST_ACCURACY = 0.75
MOST_LINEAR = 0.50
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


def main() -> int:
    """Print the table and return the exit code."""
    faults = []
    linear = linear_accuracy(DEMO / "data/prepared")
    print(f"{'model':24}{'accuracy':>10}{'pointing':>10}{'low':>8}{'centre':>8}{'random':>8}")
    print(f"{'linear, raw pixels':24}{linear:10.3f}")
    if linear > MOST_LINEAR:
        faults.append(f"a linear classifier reaches {linear:.1%}")
    for folder in sorted((DEMO / "reports/models").iterdir()):
        name = folder.name
        accuracy = json.loads((folder / "metrics.json").read_text())[name]["accuracy"]
        cam = json.loads((folder / "gradcam.json").read_text())[name]["gradcam"]
        figures = [cam[f"pointing_game{end}"] for end in ("", "_low", "_centre", "_random")]
        print(f"{name:24}{accuracy:10.3f}{figures[0]:10.3f}", *(f"{f:7.3f}" for f in figures[1:]))
        if accuracy < LEAST_ACCURACY:
            faults.append(f"{name} reaches {accuracy:.1%} only")
        if figures[1] <= figures[2]:
            faults.append(f"{name}'s maps point at the object no more often than the middle does")
    for fault in faults:
        print(f"not as claimed: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
