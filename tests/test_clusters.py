"""Clusters of features: known ones are found, whatever their number."""

import numpy as np
import pytest

from cifarpipe.explanations import clusters as module
from cifarpipe.explanations.clusters import find_clusters


def unit(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Return which of four directions each of 80 features has."""
    monkeypatch.setattr(module, "MEAN_SIZE", 20)
    return np.random.default_rng(1).permutation(np.repeat(np.arange(4), 20))


def test_known_clusters_are_found(groups: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    features = unit(np.eye(6)[groups] + 0.05 * rng.normal(size=(80, 6)))
    clusters, centres = find_clusters(features, seed=0)
    pairs = set(zip(clusters.tolist(), groups.tolist(), strict=True))
    assert len(pairs) == 4
    for number, centre in enumerate(centres):
        assert clusters[centre] == number
        middle = features[clusters == number].mean(axis=0)
        distances = np.linalg.norm(features - middle, axis=1)
        assert distances[centre] == distances.min()


def test_each_cluster_is_named_after_one_of_its_own_images() -> None:
    """Even if the image of another one is nearer to its centre: twenty clusters, ten classes."""
    rng = np.random.default_rng(0)
    classes = unit(rng.normal(size=(10, 128)))
    features = unit(np.repeat(classes, 200, axis=0) + 0.06 * rng.normal(size=(2000, 128)))
    clusters, centres = find_clusters(features, seed=0)
    nearest_of_all = [
        int((features @ features[clusters == number].mean(axis=0)).argmax())
        for number in range(len(centres))
    ]
    assert len(set(nearest_of_all)) < len(centres)  # two would share a name
    assert clusters[centres].tolist() == list(range(len(centres)))


def test_clusters_depend_only_on_the_seed(groups: np.ndarray) -> None:
    features = unit(np.random.default_rng(0).normal(size=(len(groups), 6)))
    first, again, other = (find_clusters(features, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_few_images_are_one_cluster() -> None:
    clusters, centres = find_clusters(np.eye(3, dtype=np.float32), seed=0)
    assert (clusters.tolist(), centres.shape) == ([0, 0, 0], (1,))


def test_equal_features_are_no_error(groups: np.ndarray) -> None:
    """Such as those of a network that has collapsed; some clusters are empty."""
    clusters, centres = find_clusters(np.ones((len(groups), 3), np.float32), seed=0)
    assert (len(clusters), len(centres)) == (80, 4)


def test_number_of_clusters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    features = unit(np.random.default_rng(0).normal(size=(1000, 4)))
    clusters, centres = find_clusters(features, seed=0)
    assert len(centres) == len(set(clusters.tolist())) == 3
