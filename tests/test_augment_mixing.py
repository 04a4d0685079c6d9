"""Mixup and cutmix compared with torchvision's, and their draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from cifarpipe.augment.mixing import MixDraws, Mixing
from cifarpipe.augment.transform import EpochOrder

MANY = EpochOrder(1, np.arange(20_000))


def make(mixup: float = 0.0, cutmix: float = 0.0, alpha: float = 1.0) -> Mixing:
    return Mixing(mixup, alpha, cutmix, alpha, size=32, classes=10)


def draw(mixing: Mixing, epoch: EpochOrder, batch_size: int = 64) -> MixDraws:
    return mixing.draw(np.random.default_rng(0), epoch, batch_size)


@pytest.fixture
def pair(image_batch: Tensor) -> tuple[Tensor, Tensor]:
    return image_batch[:2].float(), torch.tensor([3, 7])


def mixed_pair(share: float, opacity: float, box: list[int]) -> MixDraws:
    return MixDraws(
        torch.tensor([1, -1]), torch.full((2,), share), torch.full((2,), opacity),
        torch.tensor([box, box]),
    )  # fmt: skip


def test_mixup_equals_torchvision(pair: tuple[Tensor, Tensor]) -> None:
    images, labels = pair
    theirs = v2.MixUp(num_classes=10)
    params = {"lam": 0.3, "labels": labels, "batch_size": 2}
    ours, targets = make().apply(images, labels, mixed_pair(0.3, 0.3, [0, 0, 0, 0]))
    torch.testing.assert_close(ours, theirs.transform(images, params))
    torch.testing.assert_close(targets, theirs.transform(labels, params))


def test_cutmix_equals_torchvision(pair: tuple[Tensor, Tensor]) -> None:
    images, labels = pair
    theirs = v2.CutMix(num_classes=10)
    params = {
        "box": (4, 10, 12, 32), "lam_adjusted": 1 - 8 * 22 / 1024, "labels": labels,
        "batch_size": 2,
    }  # fmt: skip
    ours, targets = make().apply(images, labels, mixed_pair(1 - 8 * 22 / 1024, 1.0, [10, 4, 22, 8]))
    assert torch.equal(ours, theirs.transform(images, params))
    torch.testing.assert_close(targets, theirs.transform(labels, params))


def test_image_without_partner_is_unchanged(image_batch: Tensor) -> None:
    images, labels = image_batch.float(), torch.arange(len(image_batch)) % 10
    drawn = draw(make(mixup=0.5), EpochOrder(1, np.arange(len(image_batch))))
    ours, targets = make(mixup=0.5).apply(images, labels, drawn)
    single = drawn.partner == 0
    assert 10 < single.sum() < 54
    assert torch.equal(ours[single], images[single])
    assert torch.equal(targets[single], torch.nn.functional.one_hot(labels, 10)[single].float())


def test_mixup_and_cutmix_have_their_probabilities() -> None:
    drawn = draw(make(mixup=0.3, cutmix=0.6), MANY)
    mixed = drawn.opacity < 1
    cut = drawn.partner.ne(0) & ~mixed
    assert stats.binomtest(int(mixed.sum()), len(MANY), 0.3).pvalue > 1e-3
    assert stats.binomtest(int(cut.sum()), len(MANY), 0.6).pvalue > 1e-3
    assert not drawn.box[mixed].any()


def test_mixup_shares_follow_the_beta_distribution() -> None:
    drawn = draw(make(mixup=1.0, alpha=0.4), MANY)
    assert stats.kstest(drawn.share.double(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    assert torch.equal(drawn.share, drawn.opacity)


def test_cutmix_boxes_are_drawn_as_by_torchvision() -> None:
    drawn = draw(make(cutmix=1.0, alpha=1.0), MANY)
    theirs = v2.CutMix(num_classes=10, alpha=1.0)
    torch.manual_seed(0)
    images = [torch.zeros(2, 3, 32, 32)]
    params = [theirs.make_params(images) for _ in range(4000)]
    top, left, height, width = drawn.box.numpy().T
    for values, place in ((left, 0), (top, 1), (left + width, 2), (top + height, 3)):
        assert stats.ks_2samp(values, [each["box"][place] for each in params]).pvalue > 1e-3
    shares = [each["lam_adjusted"] for each in params]
    assert stats.ks_2samp(drawn.share, shares).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (9, 4), (7, 7), (3, 1), (5, 8)])
def test_partners_are_neighbours_within_the_batch(kind: str, count: int, batch_size: int) -> None:
    drawn = draw(make(**{kind: 1.0}), EpochOrder(1, np.arange(count)), batch_size)
    for start in range(0, count, batch_size):
        partner = drawn.partner[start : start + batch_size]
        whose = torch.arange(len(partner)) + partner
        assert torch.equal(whose[whose], torch.arange(len(partner)))  # mutual, and in the batch
        assert partner.eq(0).sum() == len(partner) % 2
