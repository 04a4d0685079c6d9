"""Reading a folder of images."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from cifarpipe.config.errors import UserError
from cifarpipe.data import decoding
from cifarpipe.data.decoding import CHUNK, decode_all
from cifarpipe.data.folder import read_folder
from cifarpipe.data.picture import open_picture
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
        ("cat/1.png", "dog/20231104153012345.png"),  # JavaScript would round it
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
    (pictures / "train/cat/thumbs.db").write_bytes(b"x")
    (pictures / "train/cat/Desktop.ini").write_bytes(b"x")
    (pictures / "train/__MACOSX").mkdir()
    (pictures / "train/cat/._0.png").write_bytes(b"x")
    (pictures / "train/.cache").mkdir()
    (pictures / "train/README.txt").write_text("about these images")
    (pictures / "test/dog/.ipynb_checkpoints").mkdir()
    after = read_folder(str(pictures))
    assert after.train.files == before.train.files
    assert after.fingerprint() == before.fingerprint()


def test_accents_of_two_characters_name_the_same_class(pictures: Path) -> None:
    """As macOS writes them."""
    for half, name in (("train", "cafe\u0301"), ("test", "caf\u00e9")):
        (pictures / half / "cat").rename(pictures / half / name)
    raw = read_folder(str(pictures))
    assert raw.classes == ["caf\u00e9", "dog"]
    assert raw.train.labels.tolist() == [0, 0, 1, 1]
    assert raw.test.labels.tolist() == [0, 1]


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
    opaque = np.full((SIDE, SIDE), 255, np.uint8)
    Image.fromarray(np.dstack([colour, opaque])).save(folder / "rgba.png")
    Image.fromarray(np.dstack([grey, opaque])).save(folder / "grey_alpha.png")
    raw = read_folder(str(pictures))
    assert raw.train.files is not None
    assert raw.train.images.shape == (10, SIDE, SIDE, 3)
    read = dict(zip(raw.train.files, raw.train.images, strict=True))
    assert np.array_equal(read["cat/grey.png"], np.dstack([grey] * 3))
    assert np.array_equal(read["cat/grey_alpha.png"], np.dstack([grey] * 3))
    assert np.array_equal(read["cat/one_bit.png"], np.dstack([(grey > 127) * np.uint8(255)] * 3))
    for name in ("cmyk.tif", "palette.png", "rgba.png"):
        assert np.array_equal(read[f"cat/{name}"], colour)


def test_pixels_are_those_that_predict_sees(pictures: Path) -> None:
    """Of a transparent and of a rotated image, with and without `image_size`."""
    rng = np.random.default_rng(0)
    folder = pictures / "train/cat"
    rgba = rng.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(folder / "transparent.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(7)).save(folder / "rotated.png", exif=exif)
    raw = read_folder(str(pictures))
    assert raw.train.files is not None
    read = dict(zip(raw.train.files, raw.train.images, strict=True))
    for name in ("transparent.png", "rotated.png"):
        expected = open_picture(folder / name).resized(SIDE).pixels
        assert np.array_equal(read[f"cat/{name}"], expected)
    assert not np.array_equal(read["cat/transparent.png"], rgba[..., :3])
    assert np.array_equal(read["cat/rotated.png"], np.rot90(pixels(7), -1))


@pytest.mark.parametrize("size", [None, SIDE])
def test_many_images_are_read_in_order(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several processes, whose chunks end in any order."""
    monkeypatch.chdir(tmp_path)
    for number in range(3 * CHUNK):
        save(tmp_path / f"raw/train/cat/{number:03}.png", pixels(number))
        save(tmp_path / f"raw/test/cat/{number:03}.png", pixels(1000 + number))
    raw = read_folder(str(tmp_path / "raw"), size)
    for first, split in ((0, raw.train), (1000, raw.test)):
        assert len(split.images) == 3 * CHUNK
        for number, image in enumerate(split.images):
            assert np.array_equal(image, pixels(first + number))


def test_stopped_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that the system stops for lack of memory."""
    for number in range(CHUNK + 1):
        save(tmp_path / f"{number:03}.png", pixels(number))
    files = sorted(tmp_path.glob("*.png"))
    monkeypatch.setattr(decoding, "_decode_chunk", stop)
    with pytest.raises(UserError, match="a process that reads images was stopped"):
        list(decode_all(files, None))


def stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_unknown_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"~nosuchuser/x can't be used: there is no such home"):
        read_folder("~nosuchuser/x")
    monkeypatch.setenv("CIFARPIPE_DATA", "~nosuchuser")
    with pytest.raises(UserError, match="there is no such home folder"):
        read_folder("x")


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


def test_huge_files_are_refused_unread(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = max(path.stat().st_size for path in pictures.rglob("*.png"))
    monkeypatch.setattr("cifarpipe.data.folder.MAX_BYTES", largest)
    read_folder(str(pictures))
    with (pictures / "train/cat/1.png").open("ab") as file:
        file.write(bytes(largest))
    with pytest.raises(UserError, match=r"train/cat/1.png: \d+ bytes, more than \d+"):
        read_folder(str(pictures))


# Images of any shape.


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_images_of_any_shape_are_cropped_and_resized(pictures: Path, workspace: Path) -> None:
    """As `cifarpipe explain` converts them."""
    folder = pictures / "train/cat"
    save(folder / "wide.png", pixels(1, height=10, width=30))
    save(folder / "tall.jpg", pixels(2, height=40, width=12))
    Image.fromarray(pixels(3, 20, 24)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels(4, 9, 16)[..., 0]).save(folder / "grey.png")
    clear = np.dstack([pixels(5, 16, 11), np.zeros((16, 11), np.uint8)])
    Image.fromarray(clear).save(folder / "clear.png")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(pixels(6, 12, 18)).save(folder / "rotated.png", exif=rotated)
    frames = [Image.fromarray(pixels(seed, 14, 15)) for seed in (7, 8)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    raw = read_folder(str(pictures), 6)
    assert raw.train.files is not None
    assert raw.train.images.shape == (11, 6, 6, 3)
    for name, found in zip(raw.train.files, raw.train.images, strict=True):
        expected = open_picture(pictures / "train" / name).resized(6).pixels
        assert np.array_equal(found, expected), name
    assert (raw.train.images[raw.train.files.index("cat/clear.png")] == 255).all()


def test_suitable_images_do_not_depend_on_image_size(pictures: Path, workspace: Path) -> None:
    (pictures / "test/cat/a.png").rename(pictures / "test/cat/12.png")
    (pictures / "test/dog/a.png").rename(pictures / "test/dog/3.png")
    plain, resized = read_folder(str(pictures)), read_folder(str(pictures), SIDE)
    assert resized.fingerprint() == plain.fingerprint()
    for one, other in ((plain.train, resized.train), (plain.test, resized.test)):
        assert one.files == other.files
        assert one.original(np.array([0, 1])).tolist() == other.original(np.array([0, 1])).tolist()
    assert resized.test.files == ["dog/3.png", "cat/12.png"]


def test_unusable_images_of_any_shape_are_listed(pictures: Path, workspace: Path) -> None:
    (pictures / "train/cat/notes.jpg").write_text("cats are nice")
    (pictures / "train/cat/empty.png").touch()
    cut = (pictures / "test/dog/a.png").read_bytes()[:60]
    (pictures / "test/dog/a.png").write_bytes(cut)
    with pytest.raises(UserError) as refused:
        read_folder(str(pictures), 6)
    message = str(refused.value)
    assert "can't be used (3 problems):" in message
    assert "  - train/cat/empty.png: is empty" in message
    assert "  - train/cat/notes.jpg: is not an image" in message
    assert "  - test/dog/a.png: " in message
    assert "complete images of any size, and nothing else." in message


def test_temporary_images_are_not_left_behind(pictures: Path, workspace: Path) -> None:
    raw = read_folder(str(pictures), 6)
    assert isinstance(raw.train.images, np.memmap)
    assert not list(workspace.rglob("*.*"))
