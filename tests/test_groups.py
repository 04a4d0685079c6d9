"""Weak groups: a planted one is named, chance alone names none, and p-values against SciPy."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from cifarpipe.report import groups as module
from cifarpipe.report.groups import Group, cluster_groups, image_groups, weak_groups

CLASSES = ["cat", "dog", "frog"]


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array([np.full((8, 8, 3), colour) for colour in colours], np.uint8)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 200, (count, 8, 8, 3), dtype=np.uint8)


def named(groups: list[Group], name: str) -> Group:
    return next(group for group in groups if group.name == name)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((200, 20, 20), "red"), ((200, 20, 60), "red"), ((200, 190, 10), "yellow"),
        ((10, 180, 20), "green"), ((10, 180, 190), "cyan"), ((30, 20, 190), "blue"),
        ((190, 20, 180), "magenta"), ((90, 90, 90), "grey"), ((0, 0, 0), "grey"),
        ((200, 190, 190), "grey"),
    ],
)  # fmt: skip
def test_dominant_colour(colour: tuple[int, int, int], name: str) -> None:
    found = image_groups(plain(colour), np.zeros(1, int), ["a"])
    colours = [each.name for each in found if "mostly" in each.name and each.members[0]]
    assert colours == [f"mostly {name}", f"a, mostly {name}"]


def test_quarters_are_the_extremes() -> None:
    images = plain(*[(i, i, i) for i in range(0, 240, 20)])
    found = image_groups(images, np.arange(12) % 3, CLASSES)
    assert np.flatnonzero(named(found, "darkest quarter").members).tolist() == [0, 1, 2]
    assert np.flatnonzero(named(found, "brightest quarter").members).tolist() == [9, 10, 11]
    inside = named(found, "dog, darkest quarter")
    assert np.flatnonzero(inside.members).tolist() == [1]
    assert np.flatnonzero(inside.among).tolist() == [1, 4, 7, 10]
    names = [group.name for group in found]
    assert len(names) == len(set(names)) == 3 + 13 + 3 * 13
    for group in found:
        assert not (group.members & ~group.among).any()


def test_class_made_dark_is_named() -> None:
    """Half of the dogs are darkened, and a model gets most of those wrong."""
    labels = np.arange(600) % 3
    images = noise(600)
    dark = (labels == 1) & (np.arange(600) % 2 == 0)
    images[dark] //= 3
    is_correct = np.random.default_rng(1).random(600) > np.where(dark, 0.7, 0.05)
    found = weak_groups(image_groups(images, labels, CLASSES), is_correct)
    assert found.group[0] == "darkest quarter" or "dog" in found.group[0]
    assert {"dog", "darkest quarter", "dog, darkest quarter"} <= set(found.group)
    row = found.set_index("group").loc["dog, darkest quarter"]
    darkest = named(image_groups(images, labels, CLASSES), "dog, darkest quarter").members
    assert (darkest >= dark).all()
    assert (row["images"], row.errors) == (darkest.sum(), (darkest & ~is_correct).sum())
    assert row.accuracy < 0.5 < 0.9 < row.elsewhere
    assert ((found.p_holm > 0) & (found.p_holm < 0.05)).all()


def test_chance_names_no_group() -> None:
    """Of 20 models that err at random, about one may name a group."""
    groups = image_groups(noise(600), np.arange(600) % 3, CLASSES)
    hits = np.random.default_rng(2).random((20, 600)) > 0.2
    assert sum(len(weak_groups(groups, each)) > 0 for each in hits) <= 2


def test_p_value_is_fishers_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEVEL", 1.0)
    members = np.arange(100) < 30
    is_correct = ~((np.arange(100) < 12) | (np.arange(100) >= 92))  # 12 errors of 30, 8 of 70
    (row,) = weak_groups([Group("g", members, np.ones(100, bool))], is_correct).itertuples()
    expected = fisher_exact([[12, 18], [8, 62]], alternative="greater").pvalue
    assert row.p_holm == pytest.approx(expected, abs=1e-4)
    assert (row.images, row.errors, row.accuracy) == (30, 12, 0.6)
    assert row.elsewhere == pytest.approx(62 / 70, abs=1e-4)


def test_small_class_is_tested_but_not_in_vain() -> None:
    """Eight images, all wrong, are significant; single images can't be, and cost nothing."""
    labels = np.repeat([0, 1, *range(2, 202)], [400, 8, *[1] * 200])
    names = [f"c{label}" for label in range(202)]
    everything = np.ones(len(labels), bool)
    groups = [Group(name, labels == i, everything, smallest=1) for i, name in enumerate(names)]
    errors = (labels == 1) | (np.arange(len(labels)) % 50 == 0)
    found = weak_groups(groups, ~errors)
    assert found.group.tolist() == ["c1"]
    members = labels == 1
    table = [[8, 0], [(errors & ~members).sum(), (~errors & ~members).sum()]]
    tested = fisher_exact(table, alternative="greater").pvalue * 2  # the other one is c0
    assert found.p_holm[0] == pytest.approx(tested, rel=0.01)
    assert {each.smallest for each in image_groups(noise(6), np.arange(6) % 3, CLASSES)[:3]} == {1}


@pytest.mark.parametrize("count", [0, 1, 19])
def test_small_groups_are_left_out(count: int) -> None:
    members = np.arange(100) < count
    assert len(weak_groups([Group("g", members, np.ones(100, bool))], ~members)) == 0
    everything = np.ones(100, bool)
    assert len(weak_groups([Group("all", everything, everything)], ~everything)) == 0


def test_weak_cluster_is_named_after_its_centre() -> None:
    clusters = np.repeat([0, 1, 2], [50, 40, 30]).astype(np.int32)
    groups = cluster_groups(clusters, [700, 3, 9000], "vit")
    is_correct = (np.arange(120) % 10 > 0) & ~((clusters == 1) & (np.arange(120) % 2 == 0))
    (row,) = weak_groups(groups, is_correct).itertuples()
    assert row.group == "like #3 in vit's features"
    assert (row.images, row.errors) == (40, 20)
    assert row.elsewhere == pytest.approx(72 / 80)


def test_groups_larger_than_the_number_of_errors_are_not_tested_in_vain() -> None:
    """All eight errors are in a group of 20; groups of 300 of 400 images can't be significant."""
    everything = np.ones(400, bool)
    small = Group("small", np.arange(400) < 20, everything)
    large = [Group(f"large {i}", np.arange(400) % 4 != i % 4, everything) for i in range(10)]
    is_correct = np.arange(400) >= 8
    (row,) = weak_groups([small, *large], is_correct).itertuples()
    expected = fisher_exact([[8, 12], [0, 380]], alternative="greater").pvalue
    assert (row.group, row.p_holm) == ("small", pytest.approx(expected, rel=0.01))
