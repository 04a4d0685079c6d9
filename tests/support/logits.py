"""Random logits with labels, and class names that are hard to read back from a file."""

import numpy as np
import scipy.special

ODD_NAMES = ["007", "NA", "a,b", "true", "1e3", 'say "hi"', " space ", "", "null", "<b>"]


def draw_logits(n: int = 400, k: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are correct in about two of three cases, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(0, 2, (n, k))
    logits[np.arange(n), labels] += 3.5
    return logits.astype(np.float32), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    return scipy.special.softmax(logits.astype(np.float64), axis=1)
