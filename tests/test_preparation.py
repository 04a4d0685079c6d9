"""Prepared arrays: what is written is read back, and damage is noticed."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Data
from cifarpipe.data import preparation as module
from cifarpipe.data.preparation import (
    channel_statistics,
    prepare,
    public_card,
    warnings,
)
from cifarpipe.data.raw import RawData
from cifarpipe.store.outputs import write_json
from cifarpipe.store.prepared import PREPARED, SEAL, Prepared, Split, load_prepared, seal
from tests.support.raw_images import CLASSES, make_raw, settings


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_channel_statistics_equal_numpy() -> None:
    images = np.random.default_rng(0).integers(0, 200, (50, 7, 7, 3), dtype=np.uint8)
    images[..., 1] //= 3
    mean, std = channel_statistics([images[:20], images[20:]])
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_channel_statistics_do_not_depend_on_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 7, 7, 3), dtype=np.uint8)
    assert channel_statistics([images]) == channel_statistics([images[::-1, ::-1]])


def test_constant_channel_has_unit_standard_deviation() -> None:
    images = np.full((4, 2, 2, 3), (0, 51, 255), np.uint8)
    images[0, 0, 0, 0] = 255
    mean, std = channel_statistics([images])
    assert mean[1:] == pytest.approx([0.2, 1.0])
    assert std[0] < 0.5
    assert std[1:] == [1.0, 1.0]


def test_written_data_is_read_back() -> None:
    raw = make_raw(masks=True, files=True)
    written = prepare(raw, settings(), seed=3)
    read = load_prepared()
    assert read.folder == written.folder == PREPARED
    assert read.card == written.card
    on_disk = json.loads((PREPARED / "dataset.json").read_text())
    assert read.card == {key: value for key, value in on_disk.items() if key != SEAL}
    for name, source, count in (
        ("train", raw.train, 30), ("val", raw.train, 12), ("test", raw.test, 15)
    ):  # fmt: skip
        split: Split = getattr(read, name)
        assert len(split) == count
        assert (np.diff(split.index) > 0).all()
        assert np.array_equal(split.images, source.images[split.index])
        assert np.array_equal(split.labels, source.labels[split.index])
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == split.index.dtype == np.int64
        assert isinstance(split.images, np.memmap)
        assert read.card["images"][name] == count
        assert read.card["per_class"][name] == [count // 3] * 3
    assert not set(read.train.index) & set(read.val.index)
    assert read.classes == CLASSES
    assert read.image_size == 8
    assert read.fingerprint == raw.fingerprint()
    assert read.card["seed"] == 3
    assert read.card["source"] == "cifar10"


def test_statistics_are_of_the_train_split() -> None:
    raw = make_raw()
    read = prepare(raw, settings(), seed=0)
    assert (read.mean, read.std) == channel_statistics([np.asarray(read.train.images)])
    assert read.mean != channel_statistics([raw.train.images])[0]


def test_masks_and_file_names_match_test_images() -> None:
    raw = make_raw(masks=True, files=True)
    read = prepare(raw, settings(), seed=0)
    index = read.test.index
    assert raw.test.masks is not None
    assert raw.test.files is not None
    assert read.test_masks is not None
    assert np.array_equal(read.test_masks, raw.test.masks[index])
    assert read.test_masks.dtype == np.bool_
    assert read.test.files == [raw.test.files[i] for i in index]
    assert raw.train.files is not None
    assert read.train.files == [raw.train.files[i] for i in read.train.index]
    assert read.val.files == [raw.train.files[i] for i in read.val.index]
    assert sorted(path.name for path in PREPARED.glob("*masks*")) == ["test_masks.npy"]


def test_original_index_of_the_source_is_written() -> None:
    raw = make_raw()
    plain = prepare(raw, settings(), seed=0).test
    numbers = np.arange(len(raw.test.labels)) * 3 + 100
    numbered = replace(raw, test=replace(raw.test, index=numbers))
    read = prepare(numbered, settings(), seed=0)
    assert np.array_equal(read.test.index, plain.index * 3 + 100)
    assert np.array_equal(read.test.images, plain.images)
    assert read.train.index.max() < len(raw.train.labels)


def test_masks_and_files_are_optional() -> None:
    prepare(make_raw(), settings(), seed=0)
    read = load_prepared()
    assert read.test_masks is None
    assert read.test.files is None
    assert read.train.files is None
    assert list(PREPARED.glob("*masks*")) == []


def test_second_run_replaces_all_files() -> None:
    prepare(make_raw(masks=True), settings(), seed=0)
    prepare(make_raw(), settings(test_size=None), seed=0)
    assert load_prepared().test.index.tolist() == list(range(30))
    assert not (PREPARED / "test_masks.npy").exists()


def test_equal_arguments_write_equal_bytes(workspace: Path) -> None:
    prepare(make_raw(masks=True), settings(), seed=0)
    first = contents(workspace)
    prepare(make_raw(masks=True), settings(), seed=0)
    assert contents(workspace) == first
    prepare(make_raw(masks=True), settings(), seed=1)
    assert contents(workspace) != first


@pytest.mark.parametrize("images", [1, 7])
def test_results_do_not_depend_on_size_of_blocks(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    prepare(make_raw(masks=True), settings(), seed=0)
    first = contents(workspace)
    monkeypatch.setattr("cifarpipe.data.raw.BLOCK", images * 8 * 8 * 3)
    prepare(make_raw(masks=True), settings(), seed=0)
    assert contents(workspace) == first


def test_validation_split_may_be_empty() -> None:
    read = prepare(make_raw(), settings(val_size=0, train_size=None), seed=0)
    assert len(read.val) == 0
    assert read.val.images.shape == (0, 8, 8, 3)
    assert len(read.train) == 60
    assert read.card["per_class"]["val"] == [0, 0, 0]


def test_positions_find_images_by_original_index() -> None:
    split = prepare(make_raw(), settings(), seed=0).test
    wanted = split.index[[7, 0, 14, 7]]
    assert split.positions(wanted).tolist() == [7, 0, 14, 7]
    assert split.positions(np.empty(0, np.int64)).tolist() == []


def test_positions_refuse_unknown_index() -> None:
    split = prepare(make_raw(), settings(), seed=0).test
    outside = sorted(set(range(30)) - set(split.index.tolist()))
    for index in (outside[0], outside[-1], -1, 30):
        with pytest.raises(KeyError):
            split.positions(np.array([split.index[0], index]))


def test_fingerprint_covers_pixels_labels_and_classes() -> None:
    def fingerprint(half: str = "", what: str = "") -> str:
        raw = make_raw()
        if what:
            array = getattr(getattr(raw, half), what)
            array[(-1,) * array.ndim] ^= 1
        return raw.fingerprint()

    whole = make_raw()
    found = [
        fingerprint(),
        *(fingerprint(half, what) for half in ("train", "test") for what in ("images", "labels")),
        RawData(["ant", "bee", "cow"], whole.train, whole.test).fingerprint(),
        RawData(CLASSES, whole.test, whole.train).fingerprint(),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint() == found[0]
    assert all(len(value) == 64 for value in found)


@pytest.mark.parametrize("failing", ["val_labels.npy", "test_masks.npy", "dataset.json"])
@pytest.mark.parametrize("before", [True, False])
def test_failed_write_leaves_old_files(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: bool
) -> None:
    if before:
        prepare(make_raw(), settings(), seed=0)
    old = contents(workspace)
    save, write = np.save, module.write_json

    def failing_save(path: Path, array: np.ndarray) -> None:
        save(path, array)
        if path.name == failing:
            raise OSError(28, "No space left on device")

    def failing_write(path: Path, content: object) -> None:
        write(path, content)
        if path.name == failing:
            raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", failing_save)
    monkeypatch.setattr(module, "write_json", failing_write)
    with pytest.raises((UserError, KeyboardInterrupt)):
        prepare(make_raw(masks=True), settings(), seed=1)
    assert contents(workspace) == old
    assert PREPARED.exists() == before
    assert list(workspace.rglob("*.partial*")) == []


def test_invalid_sizes_are_refused_before_writing(workspace: Path) -> None:
    for wrong in ({"val_size": 60}, {"train_size": 49}, {"test_size": 31}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            prepare(make_raw(), settings(**wrong), seed=0)
    assert list(workspace.iterdir()) == []


def test_missing_data_gives_advice() -> None:
    with pytest.raises(UserError, match=r"dataset\.json does not exist. Run `dvc repro prepare`"):
        load_prepared()
    PREPARED.mkdir(parents=True)
    with pytest.raises(UserError, match="does not exist"):
        load_prepared()


def test_public_card_has_no_long_lists(workspace: Path) -> None:
    prepared = prepare(make_raw(masks=True, files=True), settings(), seed=0)
    (card,) = public_card(prepared).values()
    assert set(card) == {
        "source", "images", "image_size", "classes", "per_class", "mean", "std", "shared",
        "fingerprint",
    }  # fmt: skip
    assert prepared.fingerprint.startswith(card["fingerprint"])
    assert len(card["fingerprint"]) == 16
    assert str(workspace) not in json.dumps(card)


def test_synthetic_data_has_the_given_sizes() -> None:
    from cifarpipe.data.sources import read_source

    data = Data(source="synthetic", folder=None, val_size=10, train_size=20, test_size=30)
    prepared: Prepared = prepare(read_source(data, 4), data, 4)
    assert prepared.card["images"] == {"train": 20, "val": 10, "test": 30}
    assert prepared.test.index.tolist() == list(range(30))
    assert prepared.test_masks is not None
    assert prepared.test_masks.shape == (30, 32, 32)


@pytest.mark.parametrize(
    "name", ["train_images.npy", "val_labels.npy", "test_index.npy", "test_masks.npy"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "delete"])
def test_damaged_array_is_refused(name: str, damage: str) -> None:
    prepare(make_raw(masks=True), settings(), seed=0)
    path = PREPARED / name
    damage_file(path, damage)
    read = load_prepared()
    with pytest.raises(UserError, match=f"{name} is not what `prepare` writes"):
        _ = read.train, read.val, read.test, read.test_masks


def damage_file(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) - 5
    if damage == "flip":
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "cut" else whole + b"0")


def test_card_of_another_version_is_refused() -> None:
    card = prepare(make_raw(), settings(), seed=0).card
    old = {key: value for key, value in card.items() if key != "files"}
    write_json(PREPARED / "dataset.json", seal(old))
    with pytest.raises(UserError, match="is not what `prepare` writes"):
        load_prepared()


def test_any_changed_bit_of_the_card_is_noticed() -> None:
    prepare(make_raw(), settings(), seed=0)
    path = PREPARED / "dataset.json"
    whole = path.read_bytes()
    before = load_prepared().card
    for position in np.random.default_rng(0).integers(0, 8 * len(whole), 300):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        with suppress(UserError):
            assert load_prepared().card == before  # white space, or 1e5 and 1E5


def test_usual_data_gives_no_warnings() -> None:
    assert warnings(prepare(make_raw(), settings(), seed=0)) == []
    assert warnings(prepare(make_raw(), settings(val_size=0), seed=0)) == []


def test_missing_classes_are_named() -> None:
    prepared = prepare(make_raw(), settings(val_size=58, train_size=1), seed=0)
    (present,) = np.flatnonzero(prepared.card["per_class"]["train"])
    absent = [name for label, name in enumerate(CLASSES) if label != present]
    assert warnings(prepared) == [f"no training images of {', '.join(absent)}"]
    prepared = prepare(make_raw(), settings(val_size=2), seed=0)
    (absent,) = np.array(CLASSES)[np.array(prepared.card["per_class"]["val"]) == 0]
    assert warnings(prepared) == [f"no validation images of {absent}"]


def test_classes_without_test_images_are_named() -> None:
    prepared = prepare(make_raw(), settings(test_size=2), seed=0)
    (absent,) = np.array(CLASSES)[np.array(prepared.card["per_class"]["test"]) == 0]
    assert warnings(prepared) == [f"no test images of {absent}"]


def test_single_class_is_a_warning() -> None:
    raw = make_raw()
    for split in (raw.train, raw.test):
        split.labels[:] = 0
    prepared = prepare(replace(raw, classes=["ant"]), settings(), seed=0)
    assert warnings(prepared) == ["there is one class only, so every prediction is correct"]


@pytest.mark.parametrize("files", [True, False])
def test_equal_images_with_different_labels_are_named(files: bool) -> None:
    raw = make_raw(files=files)
    ants, bees = (np.flatnonzero(raw.train.labels == label)[:2] for label in (0, 1))
    raw.train.images[ants[1]] = raw.train.images[ants[0]]  # the same label: no conflict
    raw.train.images[bees[0]] = raw.train.images[ants[0]]
    everything = settings(val_size=0, train_size=None)
    (warning,) = warnings(prepare(raw, everything, seed=0))
    first, rest = warning.split(": ")
    assert first == "3 train images are exact duplicates with different labels"
    numbers = sorted([*ants, bees[0]])
    expected = [f"#{i} ({'bee' if i == bees[0] else 'ant'})" for i in numbers]
    assert rest.split(", ") == ([raw.train.files[i] for i in numbers] if files else expected)


def test_one_duplicate_is_singular() -> None:
    raw = make_raw()
    raw.test.images[0] = raw.train.images[0]
    prepared = prepare(raw, settings(val_size=0, train_size=None, test_size=None), seed=0)
    assert warnings(prepared) == ["1 test image is an exact duplicate of a train image"]


def test_duplicates_across_splits_are_counted() -> None:
    raw = make_raw()
    everything = {"val_size": 12, "train_size": None, "test_size": None}
    assert prepare(raw, settings(**everything), seed=0).card["shared"] == {
        "val_in_train": 0, "test_in_train": 0, "test_in_val": 0,
    }  # fmt: skip
    train, val = load_prepared().train, load_prepared().val
    raw.test.images[3] = raw.test.images[9] = raw.train.images[train.index[5]]
    raw.test.images[0] = raw.train.images[val.index[2]]
    raw.test.images[1] = raw.train.images[val.index[2]]
    raw.test.images[1, 7, 7, 2] ^= 1  # differs by one bit
    card = prepare(raw, settings(**everything), seed=0).card
    assert card["shared"] == {"val_in_train": 0, "test_in_train": 2, "test_in_val": 1}
