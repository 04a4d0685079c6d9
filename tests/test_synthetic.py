"""Synthetic images: reproducible, balanced, not trivial, and with correct masks."""

import numpy as np
import pytest

from cifarpipe.data.raw import RawData
from cifarpipe.data.synthetic import CLASSES, SIZE, make_synthetic


@pytest.fixture(scope="module")
def data() -> RawData:
    return make_synthetic(1500, 500, seed=0)


def masks_of(data: RawData) -> np.ndarray:
    assert data.train.masks is not None
    return data.train.masks


def same(one: RawData, other: RawData, half: str) -> bool:
    first, second = getattr(one, half), getattr(other, half)
    count = min(len(first.labels), len(second.labels))
    return all(
        np.array_equal(getattr(first, key)[:count], getattr(second, key)[:count])
        for key in ("images", "labels", "masks")
    )


def test_shapes_and_types(data: RawData) -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 10
    assert data.classes == CLASSES
    for split, count in ((data.train, 1500), (data.test, 500)):
        assert split.images.shape == (count, SIZE, SIZE, 3)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (count,)
        assert split.labels.dtype == np.int64
        assert split.masks is not None
        assert split.masks.shape == (count, SIZE, SIZE)
        assert split.masks.dtype == np.bool_


def test_equal_seeds_give_equal_bytes() -> None:
    one, again, other = (make_synthetic(30, 20, seed=seed) for seed in (5, 5, 6))
    assert one.fingerprint() == again.fingerprint()
    assert one.fingerprint() != other.fingerprint()
    for half in ("train", "test"):
        assert same(one, again, half)
        assert not same(one, other, half)


def test_splits_are_independent_of_each_others_size() -> None:
    small, more_train, more_test = (
        make_synthetic(train, test, seed=5) for train, test in ((30, 20), (50, 20), (30, 40))
    )
    assert same(small, more_train, "test")
    assert same(small, more_test, "train")


def test_train_and_test_images_differ() -> None:
    data = make_synthetic(20, 20, seed=0)
    assert not (data.train.images == data.test.images).all((1, 2, 3)).any()


def test_all_images_are_different(data: RawData) -> None:
    images = np.concatenate([data.train.images, data.test.images])
    assert len({image.tobytes() for image in images}) == 2000


@pytest.mark.parametrize("count", [40, 47])
def test_classes_are_balanced_and_shuffled(count: int) -> None:
    labels = make_synthetic(count, 10, seed=1).train.labels
    per_class = np.bincount(labels, minlength=10)
    assert per_class.max() - per_class.min() <= 1
    assert labels.tolist() != (np.arange(count) % 10).tolist()
    assert labels.tolist() != sorted(labels)


def test_masks_cover_the_object(data: RawData) -> None:
    """Warm objects have more red than blue, cool ones more blue; backgrounds have either."""
    masks = masks_of(data)
    redness = data.train.images[..., 0].astype(int) - data.train.images[..., 2]
    is_warm = np.array([CLASSES[label].startswith("warm") for label in data.train.labels])
    tinted = np.where(is_warm[:, None, None], redness > 0, redness < 0)
    assert tinted[masks].mean() > 0.99
    assert tinted[~masks].mean() < 0.65


def test_masks_have_the_outline_of_the_object(data: RawData) -> None:
    """A mask shifted by two pixels covers clearly less of the object's colour."""
    masks = masks_of(data)
    redness = data.train.images[..., 0].astype(int) - data.train.images[..., 2]
    is_warm = np.array([CLASSES[label].startswith("warm") for label in data.train.labels])
    signed = np.where(is_warm[:, None, None], redness, -redness)
    inside = signed[masks].mean()
    for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        assert signed[np.roll(masks, shift, axis=(1, 2))].mean() < 0.9 * inside


def test_masks_have_plausible_size_and_position(data: RawData) -> None:
    masks = masks_of(data)
    areas = masks.sum((1, 2))
    assert areas.min() >= 35
    assert areas.max() <= 260  # a quarter of the image
    border = np.ones((SIZE, SIZE), bool)
    border[1:-1, 1:-1] = False
    assert masks[:, border].sum() < 0.01 * masks.sum()
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    off = np.hypot((masks * rows).sum((1, 2)) / areas, (masks * columns).sum((1, 2)) / areas)
    assert off.min() > 4
    assert off.mean() > 7


def test_objects_are_in_every_quarter(data: RawData) -> None:
    heat = masks_of(data).mean(0)
    half = SIZE // 2
    for quarter in (heat[:half, :half], heat[:half, half:], heat[half:, :half], heat[half:, half:]):
        assert quarter.sum() / heat.sum() == pytest.approx(0.25, abs=0.04)


def test_image_centre_is_seldom_on_the_object(data: RawData) -> None:
    """Otherwise an explanation that always points there would score well."""
    assert masks_of(data)[:, SIZE // 2, SIZE // 2].mean() < 0.35


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_linear_classifier_on_pixels_fails(data: RawData) -> None:
    from sklearn.linear_model import LogisticRegression

    def pixels(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) / np.float32(255) - np.float32(0.5)

    linear = LogisticRegression(max_iter=15, C=0.01)
    linear.fit(pixels(data.train.images), data.train.labels)
    assert linear.score(pixels(data.test.images), data.test.labels) <= 0.5


def test_brightness_does_not_reveal_the_class(data: RawData) -> None:
    per_image = data.train.images.mean((1, 2, 3))
    means = [per_image[data.train.labels == label].mean() for label in range(10)]
    assert np.ptp(means) < per_image.std()
