"""The data of the page's explorer: all predictions, and some images with their maps."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from cifarpipe.figures.overlays import CONTRAST_COLOURS, MAP_COLOURS
from cifarpipe.report.sprites import Positions, encode, make_sprite, sprite_columns
from cifarpipe.report.study import ModelResults
from cifarpipe.report.training_images import TrainingImages

LOSSLESS_UP_TO = 64  # pixels of a side; larger images would fill the page
WEBP_QUALITY = 90
STEPS = 127  # quantisation of a map
CONFIDENCES = 10_000  # quantisation of a probability


def rank_images(results: Sequence[ModelResults], first: Positions) -> Positions:
    """Rank the test images by interest.

    First those that the page shows anyway, and those that the stages selected (errors stratified by
    class, and correct images). Then, in turn for each model: the most confident error of every
    confusion, then the second of each, and so on; the most confident errors; the least confident
    correct predictions; and the images that all models predict wrongly.

    Args:
        results: Of all models, the best first.
        first: Positions of the images that the page shows anyway.

    Returns:
        Positions in the test split, each at most once.
    """
    order = dict.fromkeys(first.tolist())
    index = results[0].predictions["index"].tolist()
    place = {index: position for position, index in enumerate(index)}
    selected = [
        [place[index] for index in rows["index"].tolist()]
        for rows in (*(m.misclassified for m in results), *(m.correct for m in results))
    ]
    for turn in zip_longest(*selected):
        order.update(dict.fromkeys(position for position in turn if position is not None))
    queues = [queue for model in results for queue in _queues(model)]
    queues.append(_wrong_in_all(results))
    iterators = [iter(queue.tolist()) for queue in queues]
    while iterators:
        for iterator in list(iterators):
            position = next((p for p in iterator if p not in order), None)
            if position is None:
                iterators.remove(iterator)
            else:
                order[position] = None
    return np.array(list(order), np.int64)


def _queues(model: ModelResults) -> Iterator[Positions]:
    confidence = model.predictions.confidence.to_numpy()
    most_confident = np.argsort(-confidence, kind="stable")
    errors = most_confident[~model.is_correct[most_confident]]
    # Rank within the confusion pair; among equal ranks, frequent pairs first.
    rows = model.predictions.iloc[errors]
    pairs = rows.groupby(["true", "predicted"], sort=False)
    frequency = pairs["index"].transform("size").to_numpy()
    rank = pairs.cumcount().to_numpy()
    yield errors[np.lexsort((-frequency, rank))]
    yield errors
    yield most_confident[model.is_correct[most_confident]][::-1]


def _wrong_in_all(results: Sequence[ModelResults]) -> Positions:
    wrong = np.all([~model.is_correct for model in results], axis=0)
    confidence = np.mean([model.predictions.confidence.to_numpy() for model in results], axis=0)
    order = np.argsort(-confidence, kind="stable")
    return order[wrong[order]]


def pack(
    results: Sequence[ModelResults],
    classes: Sequence[str],
    images: NDArray[np.uint8],
    shown: Positions,
    training: TrainingImages,
    *,
    flags: Mapping[str, NDArray[np.bool_]],
    opacity: float,
) -> dict[str, Any]:
    """Return everything that the page's script needs, as values for JSON; arrays are base64.

    Args:
        results: Of all models, in the order of the page.
        classes: Names, by label.
        images: `[N, S, S, 3]` of the test split.
        shown: Positions of the images to include, ascending.
        training: Training images to include.
        flags: `[N]` for each flag, to which images it applies.
        opacity: Of a map's strongest point, 0 to 1.

    Returns:
        The input of `templates/script/data.js`.
    """
    labels = {name: label for label, name in enumerate(classes)}
    first = results[0].predictions
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    true = first.true.map(labels).to_numpy(kind)
    pixels = images[shown]
    return {
        "classes": list(classes),
        "index": first["index"].tolist(),
        "files": first.file.iloc[shown].tolist() if (first.file != "").any() else None,
        "true": encode(true),
        "labelBytes": kind().itemsize,
        "confidences": CONFIDENCES,
        "flags": {name: encode(np.packbits(some)) for name, some in flags.items()},
        "shown": shown.tolist(),
        "size": pixels.shape[1],
        "losslessUpTo": LOSSLESS_UP_TO,
        "columns": sprite_columns(pixels.shape[1]),
        "sprite": make_sprite(
            pixels, lossless=pixels.shape[1] <= LOSSLESS_UP_TO, quality=WEBP_QUALITY
        ),
        "training": training.pack(),
        "opacity": opacity,
        "evidence": _palette(MAP_COLOURS),
        "contrast": _palette(CONTRAST_COLOURS),
        "models": [
            _pack_model(model, labels, true, kind, shown)
            | training.pack_neighbours(model.neighbours, shown, kind)
            for model in results
        ],
    }


def _pack_model(
    model: ModelResults, labels: dict[str, int], true: NDArray[Any], kind: Any, shown: Positions
) -> dict[str, Any]:
    table = model.predictions
    predicted = table.predicted.map(labels).to_numpy(kind)
    assert table["index"].is_monotonic_increasing, "predictions must be in the order of the images"
    k = len(labels)
    counted = np.bincount(true.astype(np.int64) * k + predicted, minlength=k * k)
    assert (counted == model.confusion.images.to_numpy()).all(), "confusions must add up"
    selected = {
        "selected-errors": model.misclassified["index"].tolist(),
        "selected-correct": model.correct["index"].tolist(),
    }
    explanations = model.explanations
    two = ~model.is_correct[shown] & explanations.class_specific
    maps, peaks = _pack_maps(explanations.predicted[shown], explanations.true[shown], two)
    return {
        "name": model.name,
        "method": explanations.method,
        "classSpecific": explanations.class_specific,
        "errors": model.metrics["errors"].value,
        "grid": list(explanations.predicted.shape[1:]),
        "predicted": encode(predicted),
        "confidence": encode(_quantised(table.confidence.to_numpy())),
        "trueProbability": encode(_quantised(table.true_probability.to_numpy()[shown])),
        "maps": maps,
        "peaks": peaks,
        "selected": selected,
    }


def _pack_maps(
    predicted: NDArray[np.float32], true: NDArray[np.float32], two: NDArray[np.bool_]
) -> tuple[str, list[float]]:
    """Quantise each image's maps by their largest absolute value; return them and their maxima.

    For each image the map of the predicted class, followed by that of the true class if `two`.
    """
    tops = np.maximum(abs(predicted).max(axis=(1, 2)), abs(true).max(axis=(1, 2)))
    scale = (STEPS / np.maximum(tops, np.float32(1e-30)))[:, None, None]
    parts = []
    for one, other, both in zip(predicted * scale, true * scale, two, strict=True):
        parts += [one, other] if both else [one]
    steps = np.rint(np.stack(parts)) if parts else np.empty((0, 1, 1))
    most = np.maximum(predicted.max(axis=(1, 2)), true.max(axis=(1, 2)))
    # Weak evidence must not become none.
    weak = (steps == 0) & (np.stack(parts) > 0) if parts else False
    return encode(np.where(weak, 1, steps).astype(np.int8)), [float(f"{top:.3g}") for top in most]


def _quantised(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.rint(values * CONFIDENCES).astype(np.uint16)


def _palette(name: str) -> str:
    colours = mpl.colormaps[name](np.arange(256))[:, :3]
    return encode(np.rint(colours * 255).astype(np.uint8))
