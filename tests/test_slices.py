"""Slices: image properties, and accuracy in quarters of the test split."""

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage

from cifarpipe.evaluation.slices import AT_ONCE, image_properties, slice_table


def test_properties_of_plain_images_by_hand() -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = 255
    images[2, :, ::2] = 200  # stripes
    found = image_properties(images)
    assert found.brightness.tolist() == pytest.approx([0, 1, 100 / 255])
    assert found.contrast.tolist() == pytest.approx([0, 0, 100 / 255], abs=1e-9)
    assert found.sharpness.tolist()[:2] == pytest.approx([0, 0], abs=1e-9)
    assert found.sharpness[2] == pytest.approx(400 / 255)


def test_properties_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (AT_ONCE + 5, 9, 9, 3), dtype=np.uint8)
    found = image_properties(images)
    for number in (0, 7, AT_ONCE, AT_ONCE + 4):
        grey = images[number] @ [0.299, 0.587, 0.114] / 255
        laplacian = scipy.ndimage.laplace(grey)[1:-1, 1:-1]
        assert found.sharpness[number] == pytest.approx(laplacian.std())
        assert found.brightness[number] == pytest.approx(grey.mean())
        assert found.contrast[number] == pytest.approx(np.sqrt(grey.var()))


def test_blurred_image_is_less_sharp() -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    blurred = scipy.ndimage.uniform_filter(image, size=(3, 3, 1))
    found = image_properties(np.stack([image, blurred]))
    assert found.sharpness[1] < found.sharpness[0] / 2


@pytest.mark.parametrize("count", [1, 3, 10, 403])
def test_quarters_contain_each_image_once(count: int) -> None:
    rng = np.random.default_rng(count)
    properties = pd.DataFrame({"brightness": rng.random(count), "contrast": rng.random(count)})
    correct = rng.random(count) < 0.7
    table = slice_table(properties, correct)
    for name, part in table.groupby("property"):
        assert part.images.sum() == count
        assert (part.images * part.accuracy).sum() == pytest.approx(correct.sum(), abs=0.05)
        assert part.low.is_monotonic_increasing
        assert part.high.max() == pytest.approx(properties[name].max(), abs=1e-4)
        assert part.images.max() - part.images.min() <= 1


def test_errors_on_dark_images_show() -> None:
    brightness = np.linspace(0, 1, 400)
    table = slice_table(pd.DataFrame({"brightness": brightness}), brightness > 0.25)
    assert table.accuracy.tolist() == [0, 1, 1, 1]
