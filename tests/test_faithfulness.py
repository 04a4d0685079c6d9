"""Faithfulness metrics computed by hand, and for a network that reads one quarter of the image."""

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarpipe.explanations.baselines import centre_maps, random_maps
from cifarpipe.explanations.faithfulness import GROUPS, deletion_insertion, road, saco
from cifarpipe.explanations.quality import removal_metrics
from cifarpipe.results.intervals import mean_interval
from cifarpipe.results.maps import Maps

SIZE = 16


def corner_logits(batch: Tensor) -> Tensor:
    """Return logits of a network that reads only the top left quarter."""
    seen = batch[:, :, : SIZE // 2, : SIZE // 2].mean(dim=(1, 2, 3))
    return torch.stack([4 * seen, -4 * seen], dim=1)


@pytest.fixture
def bright() -> Tensor:
    """Return images that are bright in that quarter and 0 elsewhere, with some noise."""
    noise = torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) / 10
    noise[:, :, : SIZE // 2, : SIZE // 2] += 1
    return noise


def corner(value: float = 1.0) -> Maps:
    maps = np.zeros((12, 4, 4), np.float32)
    maps[:, :2, :2] = value
    return maps


def test_road_ranks_correct_maps_above_wrong_maps(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    found = {
        name: road(corner_logits, bright, maps, classes, seed=0).mean()
        for name, maps in {
            "correct": corner(),
            "inverted": corner(-1.0),
            "random": random_maps(corner(), np.random.default_rng(0)),
            "centre": centre_maps(corner()),
        }.items()
    }
    assert found["correct"] > 0.1
    assert found["inverted"] < -0.1
    assert found["inverted"] < found["random"] < found["correct"]
    assert found["centre"] < found["correct"]


def test_road_removes_exact_pixel_counts() -> None:
    """Of 16 pixels, 20%, 50% and 80% are 3, 8 and 13: of the least, then the most important ones.

    Removed pixels are those that differ from the image, since imputation adds noise.
    """
    importance = np.array(
        [[3, 14, 7, 0], [9, 1, 12, 5], [15, 6, 2, 10], [8, 11, 4, 13]], dtype=np.float32
    )
    image = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    removed: list[list[int]] = []

    def record(batch: Tensor) -> Tensor:
        changed = (batch != image).all(dim=1)[0].numpy()
        assert np.array_equal(changed, (batch != image).any(dim=1)[0].numpy())
        removed.append(sorted(importance[changed].astype(int).tolist()))
        return torch.zeros(1, 2)

    road(record, image, importance[None], torch.zeros(1).long(), seed=0)
    assert removed == [
        [0, 1, 2],
        [13, 14, 15],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 12, 13, 14, 15],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    ]


def test_road_averages_differences_of_probabilities() -> None:
    """Least minus most important: 0.8 − 0.1, 0.7 − 0.3 and 0.5 − 0.4, of class 1."""
    probabilities = iter([0.8, 0.1, 0.7, 0.3, 0.5, 0.4])

    def predict(_batch: Tensor) -> Tensor:
        value = next(probabilities)
        return torch.tensor([[1 - value, value]]).log()

    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    found = road(predict, torch.ones(1, 3, 4, 4), maps, torch.ones(1).long(), seed=0)
    assert found == pytest.approx([(0.7 + 0.4 + 0.1) / 3])


def test_road_depends_only_on_its_seed(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    torch.manual_seed(5)
    first = road(corner_logits, bright, corner(), classes, seed=1)
    after = torch.rand(())
    assert np.array_equal(first, road(corner_logits, bright, corner(), classes, seed=1))
    assert not np.array_equal(first, road(corner_logits, bright, corner(), classes, seed=2))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))


def test_deletion_and_insertion_by_hand(bright: Tensor) -> None:
    """The quarter is deleted in the first two of eight steps, half of it in each."""
    classes = torch.zeros(12, dtype=torch.int64)
    plain = torch.zeros_like(bright)
    plain[:, :, : SIZE // 2, : SIZE // 2] = 1.0
    blocks = np.zeros((12, SIZE, SIZE), np.float32)
    blocks[:, : SIZE // 2, : SIZE // 2] = 1.0
    deletion, insertion = deletion_insertion(corner_logits, plain, blocks, classes, seed=0)
    whole, half, none = (1 / (1 + np.exp(-8 * seen)) for seen in (1.0, 0.5, 0.0))
    assert deletion == pytest.approx(np.full(12, (whole / 2 + half + none * 6.5) / 8), abs=1e-6)
    assert (insertion > 0.85 * whole).all()
    worse_deletion, worse_insertion = deletion_insertion(
        corner_logits, plain, -blocks, classes, seed=0
    )
    assert (worse_deletion > deletion).all()
    assert (worse_insertion < insertion).all()


def test_insertion_starts_from_gaussian_blur() -> None:
    """Its standard deviation is a sixth of the image, as in SciPy's filter up to three of them."""
    batch = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def record(inserted: Tensor) -> Tensor:
        seen.append(inserted)
        return torch.zeros(len(inserted), 2)

    maps = random_maps(np.zeros((2, 4, 4), np.float32), np.random.default_rng(0))
    deletion_insertion(record, batch, maps, torch.zeros(2, dtype=torch.int64), seed=0)
    expected = scipy.ndimage.gaussian_filter(
        batch.numpy(), SIZE / 6, mode="nearest", truncate=3, axes=(2, 3)
    )
    np.testing.assert_allclose(seen[1], expected, atol=1e-5)  # the first with nothing inserted
    assert torch.equal(seen[-1], batch)


def saco_by_pairs(evidence: list[float], drops: list[float]) -> float:
    """The paper's algorithm 1, for groups in descending order of evidence."""
    agreement = total = 0.0
    for i in range(len(evidence)):
        for j in range(i + 1, len(evidence)):
            weight = evidence[i] - evidence[j]
            agreement += weight if drops[i] >= drops[j] else -weight
            total += weight
    return agreement / total


def test_saco_equals_the_algorithm_of_its_paper() -> None:
    """Ten groups of ten pixels, each of which is replaced by the mean colour of its image."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(3, 3, 10, 10)))
    maps = rng.normal(size=(3, 10, 10)).astype(np.float32)
    weights = torch.from_numpy(rng.normal(size=(300, 4))) / 5
    classes = torch.tensor([0, 3, 2])

    def predict(batch: Tensor) -> Tensor:
        return batch.flatten(1) @ weights

    def probability(image: Tensor, label: int) -> float:
        return float(predict(image[None]).softmax(dim=1)[0, label])

    expected = []
    for image, each, label in zip(images, maps, classes.tolist(), strict=True):
        pixels = np.argsort(-each.ravel())
        evidence, drops = [], []
        for group in pixels.reshape(GROUPS, -1):
            without = image.clone().flatten(1)
            without[:, group] = image.mean(dim=(1, 2))[:, None]
            evidence.append(float(each.ravel()[group].sum()))
            drops.append(probability(image, label) - probability(without.view_as(image), label))
        expected.append(saco_by_pairs(evidence, drops))
    assert saco(predict, images, maps, classes, seed=0) == pytest.approx(expected, abs=1e-6)
    assert len(set(np.round(expected, 3))) == 3


def test_saco_of_right_wrong_and_constant_maps() -> None:
    """The logit is the sum of what the map says of each pixel; the mean colour adds nothing."""
    maps = np.arange(100, dtype=np.float32).reshape(1, 10, 10) - 49.5
    image = torch.from_numpy(maps).expand(1, 3, 10, 10)

    def predict(batch: Tensor) -> Tensor:
        score = batch.sum(dim=(1, 2, 3)) / 1000
        return torch.stack([score, -score], dim=1)

    first = torch.zeros(1, dtype=torch.int64)
    for each, classes, expected in (
        (maps, first, 1),
        (-maps, first, -1),
        (maps, first + 1, -1),
        (np.ones_like(maps), first, 0),
        (np.full((1, 3, 3), 0.1, np.float32), first, 0),  # upsampling changes its last digits
    ):
        assert saco(predict, image, each, classes, seed=0) == pytest.approx([expected])


def test_saco_does_not_depend_on_the_scale_of_the_maps(bright: Tensor) -> None:
    classes = torch.zeros(12, dtype=torch.int64)
    maps = random_maps(corner(), np.random.default_rng(0))
    found = saco(corner_logits, bright, maps / 100, classes, seed=0)
    assert found == pytest.approx(saco(corner_logits, bright, maps, classes, seed=0))


def test_saco_counts_equal_probabilities_for_the_map(bright: Tensor) -> None:
    """As in Algorithm 1 of the paper: the drop is to be at least as large."""
    classes = torch.zeros(12).long()
    found = saco(lambda batch: torch.zeros(len(batch), 2), bright, corner(), classes, seed=0)
    assert found.tolist() == [1.0] * 12


def test_pixels_are_deleted_from_the_highest_value_on() -> None:
    """Whatever the order among equal values, which depends on the seed."""
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) + 9
    maps = np.random.default_rng(0).integers(3, size=(1, SIZE, SIZE)).astype(np.float32)
    values = torch.from_numpy(maps).flatten()
    deleted: list[Tensor] = []

    def record(batch: Tensor) -> Tensor:
        deleted.append((batch[0, 0] == 0).flatten())
        return torch.zeros(1, 2)

    for seed in (0, 1):
        deletion_insertion(record, image, maps, torch.zeros(1).long(), seed=seed)
    first, second = deleted[:18:2], deleted[18::2]  # the others have inserted pixels
    for step, chosen in enumerate(first):
        assert chosen.sum() == 32 * step
        if 0 < step < 8:
            assert values[chosen].min() >= values[~chosen].max()
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("value", [0.0, 0.1])
@pytest.mark.parametrize("towards", ["top", "bottom"])
def test_constant_maps_are_no_better_than_random_maps(value: float, towards: str) -> None:
    """Whether a network looks at the top or the bottom: no position comes first."""
    half = slice(0, SIZE // 2) if towards == "top" else slice(SIZE // 2, SIZE)
    images = torch.zeros(200, 3, SIZE, SIZE)
    images[:, :, half] = 1

    def predict(batch: Tensor) -> Tensor:
        seen = batch[:, :, half].mean(dim=(1, 2, 3))
        return torch.stack([4 * seen, -4 * seen], dim=1)

    maps = np.full((200, 3, 3), value, np.float32)
    found = removal_metrics(predict, images, maps, torch.zeros(200).long(), seed=0)
    gain = found["road_over_random"]
    assert gain.low < 0 < gain.high
    assert found["saco"].value == 0


def test_constant_maps_score_like_random_maps_by_all_rankings() -> None:
    """Of a network that sees edges: specks of removed pixels would be other evidence than blots."""
    images = torch.randn(300, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(images, 5, stride=1, padding=2) * 4  # smooth

    def predict(batch: Tensor) -> Tensor:
        edges = (batch[..., 1:] - batch[..., :-1]).abs().mean(dim=(1, 2, 3))
        return torch.stack([8 * edges, torch.full_like(edges, 4.0)], dim=1)

    classes = torch.zeros(300).long()
    maps = np.zeros((300, 4, 4), np.float32)
    noise = random_maps(maps, np.random.default_rng(5))
    expected, found = (
        [road(predict, images, each, classes, seed=0),
         *deletion_insertion(predict, images, each, classes, seed=0)]
        for each in (noise, maps)
    )  # fmt: skip
    for one, other in zip(expected, found, strict=True):
        difference, low, high = mean_interval(other - one)
        assert low < 0 < high
        assert abs(difference) < 0.02
