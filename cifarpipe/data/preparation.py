"""Write the prepared arrays: splits, channel statistics and dataset card."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cifarpipe.config.messages import listed
from cifarpipe.config.schema import Data
from cifarpipe.data.duplicates import conflicting_images, hash_images, shared_images
from cifarpipe.data.raw import Images, RawData, RawSplit
from cifarpipe.data.splits import Indices, choose_test, split_train
from cifarpipe.store.outputs import atomic_path, file_digest, write_json
from cifarpipe.store.prepared import CARD, PREPARED, Prepared, seal


def prepare(raw: RawData, data: Data, seed: int) -> Prepared:
    """Split `raw` and write it to `data/prepared/`, completely or not at all.

    Raises:
        UserError: The sizes in `data` exceed the number of images.
    """
    train, val = split_train(
        raw.train.labels, val_size=data.val_size, train_size=data.train_size, seed=seed
    )
    test = choose_test(raw.test.labels, test_size=data.test_size, seed=seed)
    chosen = {"train": (raw.train, train), "val": (raw.train, val), "test": (raw.test, test)}
    mean, std = channel_statistics(raw.train.blocks(train))
    hashes = {name: hash_images(split.blocks(index)) for name, (split, index) in chosen.items()}
    card: dict[str, Any] = {
        "source": data.source,
        "fingerprint": raw.fingerprint(),
        "seed": seed,
        "classes": raw.classes,
        "image_size": raw.train.images.shape[1],
        "mean": mean,
        "std": std,
        "images": {name: len(index) for name, (_, index) in chosen.items()},
        "per_class": {
            name: np.bincount(split.labels[index], minlength=len(raw.classes)).tolist()
            for name, (split, index) in chosen.items()
        },
        "shared": shared_images(hashes),
        "conflicting": conflicting_images(hashes["train"], raw.train.labels[train]),
        "files": {
            name: split.files and [split.files[i] for i in index]
            for name, (split, index) in chosen.items()
        },
        "test_masks": None if raw.test.masks is None else "test_masks.npy",
    }
    with atomic_path(PREPARED) as folder:
        folder.mkdir()
        for name, (split, index) in chosen.items():
            _write_split(folder, name, split, index)
        if raw.test.masks is not None:
            np.save(folder / "test_masks.npy", raw.test.masks[test])
        card["sha256"] = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        write_json(folder / CARD, seal(card))
    return Prepared(PREPARED, card)


def public_card(prepared: Prepared) -> dict[str, Any]:
    """Return the part of the card for people and reviews, without its long lists."""
    keys = ("source", "images", "image_size", "classes", "per_class", "mean", "std", "shared")
    card = {key: prepared.card[key] for key in keys}
    return {"dataset": {**card, "fingerprint": prepared.short_fingerprint}}


def warnings(prepared: Prepared) -> list[str]:
    """Return what may make results misleading, as sentences."""
    card, classes = prepared.card, prepared.classes
    found = [] if len(classes) > 1 else ["there is one class only, so every prediction is correct"]
    for split, what in (("train", "training"), ("val", "validation"), ("test", "test")):
        missing = [
            name for name, count in zip(classes, card["per_class"][split], strict=True) if not count
        ]
        if missing and card["images"][split]:
            found.append(f"no {what} images of {listed(missing)}")
    for pair, count in card["shared"].items():
        if count:
            later, earlier = pair.split("_in_")
            found.append(
                f"{count} {later} images are exact duplicates of {earlier} images"
                if count > 1
                else f"1 {later} image is an exact duplicate of a {earlier} image"
            )
    if conflicting := card["conflicting"]:
        train = prepared.train
        names = [
            train.files[i] if train.files else f"#{train.index[i]} ({classes[train.labels[i]]})"
            for i in conflicting
        ]
        found.append(
            f"{len(names)} train images are exact duplicates with different labels: {listed(names)}"
        )
    return found


def channel_statistics(blocks: Iterable[Images]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, in 0 to 1.

    Both are computed from integer counts, so that they do not depend on the order of the images.

    Args:
        blocks: Images `[N, H, W, 3]`, in parts.
    """
    counts = np.zeros((3, 256), np.int64)
    for block in blocks:
        for channel in range(3):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    means = [float(count @ values / count.sum()) for count in counts]
    variances = [
        float(count @ (values - mean) ** 2 / count.sum())
        for count, mean in zip(counts, means, strict=True)
    ]
    # Normalising must not divide by zero in a constant channel.
    return means, [variance**0.5 or 1.0 for variance in variances]


def _write_split(folder: Path, name: str, split: RawSplit, index: Indices) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
        "fortran_order": False,
        "shape": (len(index), *split.images.shape[1:]),
    }
    # Written, not mapped: a mapped write to a full disk kills the process.
    with (folder / f"{name}_images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in split.blocks(index):
            file.write(np.ascontiguousarray(block).data)
    np.save(folder / f"{name}_labels.npy", split.labels[index])
    np.save(folder / f"{name}_index.npy", split.original(index))
