"""Synthetic images for the demo and the tests, each with the mask of its object.

Ten classes of coloured shapes over textured backgrounds. A small network learns them in seconds. A
linear classifier on the pixels does not, since position, size, rotation, shade and background are
random in every image. The mask is the ground truth for explanations.
"""

import colorsys

import numpy as np
from numpy.typing import NDArray

from cifarpipe.data.raw import RawData, RawSplit

SIZE = 32
SHAPES = ("disc", "square", "triangle", "cross", "bars")
TINTS = ("warm", "cool")
CLASSES = [f"{tint} {shape}" for shape in SHAPES for tint in TINTS]

_RADIUS = (5.5, 9.0)  # of the circle around the object, pixels
_OFF_CENTRE = 6.0  # least distance of the object's centre from the image's, pixels
_TURN = np.pi / 12  # in either direction, radians
_HUES = {"warm": (-0.06, 0.14), "cool": (0.46, 0.70)}  # turns of the colour wheel
_EDGE = 0.6  # width of the object's soft edge, pixels

Floats = NDArray[np.float64]


def make_synthetic(train_size: int, test_size: int, seed: int) -> RawData:
    """Generate both splits; equal arguments give equal images, and the splits are independent.

    Args:
        train_size: Images of the train split, including those for validation.
        test_size: Images of the test split.
        seed: Of all random draws.
    """
    train_seed, test_seed = np.random.SeedSequence(seed).spawn(2)
    return RawData(CLASSES, _draw_split(train_size, train_seed), _draw_split(test_size, test_seed))


def _draw_split(count: int, seed: np.random.SeedSequence) -> RawSplit:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(CLASSES)).astype(np.int64)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, SIZE, SIZE), np.bool_)
    for i, label in enumerate(labels):
        images[i], masks[i] = _draw_image(CLASSES[label], rng)
    return RawSplit(images, labels, masks=masks)


def _draw_image(name: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return an image `[SIZE, SIZE, 3]` and the mask `[SIZE, SIZE]` of its object."""
    tint, shape = name.split(" ")
    radius = rng.uniform(*_RADIUS)
    centre = _place(radius, rng)
    turn = rng.uniform(-_TURN, _TURN)
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    x, y = columns - centre[0], rows - centre[1]
    u = (x * np.cos(turn) + y * np.sin(turn)) / radius
    v = (y * np.cos(turn) - x * np.sin(turn)) / radius
    cover = np.clip(0.5 - _distance(shape, u, v) * radius / _EDGE, 0, 1)

    colour = _colour(rng.uniform(*_HUES[tint]), rng.uniform(0.55, 0.95), rng.uniform(0.6, 1.0))
    shading = 1 + rng.uniform(-0.25, 0.25) * u + rng.uniform(-0.25, 0.25) * v
    object_pixels = colour * shading[..., None]
    picture = _background(rng) * (1 - cover[..., None]) + object_pixels * cover[..., None]
    picture += rng.normal(0, 0.04, picture.shape)
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8), cover > 0.5


def _place(radius: float, rng: np.random.Generator) -> Floats:
    """Draw the object's centre: the object lies inside the image, but not at its centre.

    Otherwise an explanation that always points at the centre would score well.
    """
    while True:
        centre = rng.uniform(radius, SIZE - radius, size=2)
        if np.hypot(*(centre - SIZE / 2)) >= _OFF_CENTRE:
            return centre


def _distance(shape: str, u: Floats, v: Floats) -> Floats:
    """Return the signed distance of points to the shape in the unit circle; negative inside."""
    match shape:
        case "disc":
            return np.hypot(u, v) - 0.9
        case "square":
            return np.maximum(abs(u), abs(v)) - 0.75
        case "triangle":
            return np.maximum(abs(u) * 0.87 - v * 0.5 - 0.45, v - 0.6)
        case "cross":
            arm, length = 0.27, 0.95
            upright = np.maximum(abs(u) - arm, abs(v) - length)
            return np.minimum(upright, np.maximum(abs(v) - arm, abs(u) - length))
        case "bars":
            gap = abs(abs(v) - 0.55) - 0.26
            return np.maximum(gap, abs(u) - 0.85)
    raise AssertionError(shape)


def _background(rng: np.random.Generator) -> Floats:
    """Return `[SIZE, SIZE, 3]`: two colours, blended by waves of random direction and length."""
    rows, columns = np.indices((SIZE, SIZE))
    waves = np.zeros((SIZE, SIZE))
    for _ in range(3):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4, 24)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        waves += np.sin(2 * np.pi * along / length + rng.uniform(0, 2 * np.pi))
    blend = (0.5 + waves / 6)[..., None]
    first, second = (
        _colour(rng.uniform(0, 1), rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.9))
        for _ in range(2)
    )
    return first * blend + second * (1 - blend)


def _colour(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
