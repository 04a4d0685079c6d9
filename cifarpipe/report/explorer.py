"""What the page's explorer works on: all predictions, and pictures with maps of some images."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifarpipe.figures.maps import CONTRAST_COLOURS, MAP_COLOURS
from cifarpipe.report.results import ModelResults

MOST_SIDE = 16_383  # pixels of a WebP picture
SPRITE_COLUMNS = 25
LOSSLESS_UP_TO = 64  # pixels of a side; larger pictures would fill the page
QUALITY = 90
STEPS = 127  # of a map's strength
CONFIDENCES = 10_000  # parts of 1

Positions = NDArray[np.int64]


def most_pictures(size: int) -> int:
    """Return how many square pictures of a side the page can hold: they lie in one."""
    return sprite_columns(size) * (MOST_SIDE // size)


def sprite_columns(size: int) -> int:
    """Return how many pictures of a side, in pixels, lie in one row."""
    return min(SPRITE_COLUMNS, MOST_SIDE // size)


def rank_images(results: Sequence[ModelResults]) -> Positions:
    """Order the test images by how much they are worth seeing.

    First those that the stages chose (errors over all classes, and correct ones); then, in turns
    over the models: of each kind of confusion the surest error, then the second … ; the surest
    errors; the least sure correct answers; and what all models get wrong.

    Args:
        results: Of all models, the best first.

    Returns:
        Positions in the test split, each at most once.
    """
    order: dict[int, None] = {}
    first = results[0].predictions
    place = {index: position for position, index in enumerate(first["index"].tolist())}
    chosen = [
        [place[index] for index in rows["index"].tolist()]
        for rows in (*(m.misclassified for m in results), *(m.correct for m in results))
    ]
    for turn in zip_longest(*chosen):
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
    surest_first = np.argsort(-confidence, kind="stable")
    errors = surest_first[~model.right[surest_first]]
    # The how manieth error of its kind each one is; then the frequent kinds first.
    rows = model.predictions.iloc[errors]
    kinds = rows.groupby(["true", "predicted"], sort=False)
    frequency = kinds["index"].transform("size").to_numpy()
    turn = kinds.cumcount().to_numpy()
    yield errors[np.lexsort((-frequency, turn))]
    yield errors
    yield surest_first[model.right[surest_first]][::-1]


def _wrong_in_all(results: Sequence[ModelResults]) -> Positions:
    wrong = np.all([~model.right for model in results], axis=0)
    sure = np.mean([model.predictions.confidence.to_numpy() for model in results], axis=0)
    order = np.argsort(-sure, kind="stable")
    return order[wrong[order]]


def pack(
    results: Sequence[ModelResults],
    classes: Sequence[str],
    images: Callable[[Positions], NDArray[np.uint8]],
    shown: Positions,
    *,
    flags: Mapping[str, NDArray[np.bool_]],
    opacity: float,
) -> dict[str, Any]:
    """Return all that the page's script needs, as values for JSON; arrays are base64.

    Args:
        results: Of all models, in the order of the page.
        classes: Names, by label.
        images: Returns pictures `[n, S, S, 3]` of the test split by their positions.
        shown: Positions of the images with a picture, rising.
        flags: `[N]` which images each name is true of.
        opacity: Of a map where it is strongest, 0 … 1.

    Returns:
        What `templates/page.js` reads.
    """
    labels = {name: label for label, name in enumerate(classes)}
    first = results[0].predictions
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    true = first.true.map(labels).to_numpy(kind)
    pictures = images(shown)
    return {
        "classes": list(classes),
        "index": first["index"].tolist(),
        "files": first.file.iloc[shown].tolist() if (first.file != "").any() else None,
        "true": _encode(true),
        "flags": {name: np.flatnonzero(some).tolist() for name, some in flags.items()},
        "shown": shown.tolist(),
        "size": pictures.shape[1],
        "columns": sprite_columns(pictures.shape[1]),
        "sprite": _sprite(pictures),
        "opacity": opacity,
        "evidence": _palette(MAP_COLOURS),
        "contrast": _palette(CONTRAST_COLOURS),
        "models": [_pack_model(model, labels, true, kind, shown) for model in results],
    }


def _pack_model(
    model: ModelResults, labels: dict[str, int], true: NDArray[Any], kind: Any, shown: Positions
) -> dict[str, Any]:
    table = model.predictions
    predicted = table.predicted.map(labels).to_numpy(kind)
    assert table["index"].is_monotonic_increasing, "predictions must stand in the images' order"
    k = len(labels)
    counted = np.bincount(true.astype(np.int64) * k + predicted, minlength=k * k)
    assert (counted == model.confusion.images.to_numpy()).all(), "confusions must add up"
    chosen = {
        "chosen-errors": model.misclassified["index"].tolist(),
        "chosen-correct": model.correct["index"].tolist(),
    }
    two = ~model.right[shown] & model.class_specific
    maps, peaks = _pack_maps(model.predicted_maps[shown], model.true_maps[shown], two)
    return {
        "name": model.name,
        "method": model.method,
        "classSpecific": model.class_specific,
        "errors": model.metrics["errors"],
        "grid": list(model.predicted_maps.shape[1:]),
        "predicted": _encode(predicted),
        "confidence": _encode(_share(table.confidence.to_numpy())),
        "trueProbability": _encode(_share(table.true_probability.to_numpy()[shown])),
        "maps": maps,
        "peaks": peaks,
        "chosen": chosen,
    }


def _pack_maps(
    predicted: NDArray[np.float32], true: NDArray[np.float32], two: NDArray[np.bool_]
) -> tuple[str, list[float]]:
    """Return maps as whole steps of the largest number in an image's two, and their most evidence.

    The map of the predicted class of each image; after it, where there are two, that of the true.
    """
    tops = np.maximum(abs(predicted).max(axis=(1, 2)), abs(true).max(axis=(1, 2)))
    scale = (STEPS / np.maximum(tops, np.float32(1e-30)))[:, None, None]
    parts = []
    for one, other, both in zip(predicted * scale, true * scale, two, strict=True):
        parts += [one, other] if both else [one]
    steps = np.rint(np.stack(parts)) if parts else np.empty((0, 1, 1))
    most = np.maximum(predicted.max(axis=(1, 2)), true.max(axis=(1, 2)))
    # However weak, evidence stays evidence.
    weak = (steps == 0) & (np.stack(parts) > 0) if parts else False
    return _encode(np.where(weak, 1, steps).astype(np.int8)), [float(f"{top:.3g}") for top in most]


def _share(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.rint(values * CONFIDENCES).astype(np.uint16)


def _encode(array: NDArray[Any]) -> str:
    """Return the bytes, the lower ones first, as base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def _palette(name: str) -> str:
    colours = mpl.colormaps[name](np.arange(256))[:, :3]
    return _encode(np.rint(colours * 255).astype(np.uint8))


def _sprite(pictures: NDArray[np.uint8]) -> str:
    """Put pictures side by side into one, by rows, as a data URI."""
    count, size = pictures.shape[:2]
    columns = sprite_columns(size)
    sheet = np.zeros((max(1, -(-count // columns)) * size, columns * size, 3), np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * size, number % columns * size
        sheet[top : top + size, left : left + size] = picture
    buffer = io.BytesIO()
    lossless = size <= LOSSLESS_UP_TO
    Image.fromarray(sheet).save(buffer, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
