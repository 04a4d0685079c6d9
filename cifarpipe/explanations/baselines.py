"""Uninformative maps, with which those of an explanation are compared."""

import numpy as np

from cifarpipe.results.maps import Maps


def random_maps(maps: Maps, rng: np.random.Generator) -> Maps:
    """Return random maps of the same shape."""
    return rng.standard_normal(maps.shape).astype(np.float32)


def shuffled_maps(maps: Maps, rng: np.random.Generator) -> Maps:
    """Return maps with the same values in random places."""
    return rng.permuted(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape)


def centre_maps(maps: Maps) -> Maps:
    """Return maps of the same shape with a central Gaussian; its sd is a quarter of the side."""
    rows, columns = (
        np.exp(-(((np.arange(length) + 0.5) / length - 0.5) ** 2) / (2 * 0.25**2))
        for length in maps.shape[1:]
    )
    middle = np.outer(rows, columns).astype(np.float32)
    return np.broadcast_to(middle, maps.shape).copy()
