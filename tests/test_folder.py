"""Reading a folder of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarpipe.config.errors import UserError
from cifarpipe.data.folder import read_folder
from tests.support.image_folders import SIDE, make_images, pixels, save


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_images(tmp_path / "pictures")


def test_classes_and_files_are_sorted(pictures: Path) -> None:
    save(pictures / "train/ant/10.png", pixels(30))
    save(pictures / "train/ant/1.png", pixels(31))
    save(pictures / "test/ant/z.bmp", pixels(32))
    raw = read_folder(str(pictures))
    assert raw.classes == ["ant", "cat", "dog"]
    assert raw.train.files == [
        "ant/1.png", "ant/10.png", "cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png",
    ]  # fmt: skip
    assert raw.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert raw.train.labels.dtype == np.int64
    expected = np.stack([pixels(seed) for seed in (31, 30, 0, 1, 10, 11)])
    assert np.array_equal(raw.train.images, expected)
    assert raw.train.images.dtype == np.uint8
    assert raw.test.files == ["ant/z.bmp", "cat/a.png", "dog/a.png"]
    assert raw.test.labels.tolist() == [0, 1, 2]
    assert np.array_equal(raw.test.images, np.stack([pixels(seed) for seed in (32, 5, 15)]))
    assert raw.train.masks is None
    assert raw.test.masks is None


def rename_test_images(pictures: Path, *names: str) -> None:
    for old, new in zip(("cat/a.png", "dog/a.png"), names, strict=True):
        (pictures / "test" / old).rename(pictures / "test" / new)


def test_numbered_test_images_are_ordered_by_number(pictures: Path) -> None:
    save(pictures / "test/dog/0007.png", pixels(33))
    rename_test_images(pictures, "cat/10.png", "dog/9.png")
    raw = read_folder(str(pictures))
    assert raw.test.files == ["dog/0007.png", "dog/9.png", "cat/10.png"]
    assert raw.test.labels.tolist() == [1, 1, 0]
    assert np.array_equal(raw.test.images, np.stack([pixels(seed) for seed in (33, 15, 5)]))
    assert raw.test.original(np.array([2, 0])).tolist() == [10, 7]
    assert raw.train.index is None


@pytest.mark.parametrize(
    "names",
    [
        ("cat/1.png", "dog/1.png"),
        ("cat/01.png", "dog/1.png"),
        ("cat/1.png", "dog/a2.png"),
        ("cat/1.png", "dog/-2.png"),
        ("cat/1.png", "dog/².png"),
        ("cat/1.png", f"dog/{10**18}.png"),
    ],
)
def test_names_that_are_no_distinct_numbers_give_positions(
    pictures: Path, names: tuple[str, str]
) -> None:
    rename_test_images(pictures, *names)
    raw = read_folder(str(pictures))
    assert raw.test.files == list(names)
    assert raw.test.original(np.array([1])).tolist() == [1]


@pytest.mark.parametrize("backwards", [False, True])
def test_order_is_independent_of_file_system(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    iterdir = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda folder: iter(sorted(iterdir(folder), reverse=backwards))
    )
    raw = read_folder(str(pictures))
    assert raw.classes == ["cat", "dog"]
    assert raw.train.files == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_hidden_files_and_folders_are_ignored(pictures: Path) -> None:
    before = read_folder(str(pictures))
    (pictures / "train/cat/.DS_Store").write_bytes(b"x")
    (pictures / "train/cat/Thumbs.db").write_bytes(b"x")
    (pictures / "train/cat/._0.png").write_bytes(b"x")
    (pictures / "train/.cache").mkdir()
    (pictures / "train/README.txt").write_text("about these images")
    (pictures / "test/dog/.ipynb_checkpoints").mkdir()
    after = read_folder(str(pictures))
    assert after.train.files == before.train.files
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.gif", "x.tif", "x.webp", "x.ppm", "x.JPG"])
def test_formats_of_pillow_are_read(pictures: Path, name: str) -> None:
    flat = np.full(
        (SIDE, SIDE, 3), (200, 120, 40), np.uint8
    )  # lossy formats preserve a single colour
    save(pictures / "train/cat" / name, flat)
    raw = read_folder(str(pictures))
    assert raw.train.files is not None
    picture = raw.train.images[raw.train.files.index(f"cat/{name}")]
    assert abs(picture.astype(int) - flat).max() <= 4


def test_other_colour_modes_become_rgb(pictures: Path) -> None:
    colour = np.full((SIDE, SIDE, 3), (200, 100, 50), np.uint8)
    grey = pixels(1)[..., 0]
    folder = pictures / "train/cat"
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey > 127).save(folder / "one_bit.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE).save(
        folder / "palette.png"
    )
    with_alpha = np.dstack([colour, np.full((SIDE, SIDE), 7, np.uint8)])
    Image.fromarray(with_alpha).save(folder / "rgba.png")
    Image.fromarray(np.dstack([grey, grey])).save(folder / "grey_alpha.png")
    raw = read_folder(str(pictures))
    assert raw.train.files is not None
    assert raw.train.images.shape == (10, SIDE, SIDE, 3)
    read = dict(zip(raw.train.files, raw.train.images, strict=True))
    assert np.array_equal(read["cat/grey.png"], np.dstack([grey] * 3))
    assert np.array_equal(read["cat/grey_alpha.png"], np.dstack([grey] * 3))
    assert np.array_equal(read["cat/one_bit.png"], np.dstack([(grey > 127) * np.uint8(255)] * 3))
    for name in ("cmyk.tif", "palette.png", "rgba.png"):
        assert np.array_equal(read[f"cat/{name}"], colour)


def test_relative_folder_is_below_raw_data_root(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFARPIPE_DATA", str(pictures.parent))
    assert read_folder("pictures").classes == ["cat", "dog"]
    monkeypatch.delenv("CIFARPIPE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/raw"):
        read_folder("pictures")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(tmp_path)
    assert read_folder("pictures").classes == ["cat", "dog"]


def test_any_class_name_is_accepted(pictures: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    for half in ("train", "test"):
        save(pictures / half / name / "1.png", pixels(40))
    raw = read_folder(str(pictures))
    assert raw.classes == [name, "cat", "dog"]
    assert raw.test.files is not None
    assert raw.test.files[0] == f"{name}/1.png"
