"""Any picture file as a network sees it: what becomes of its pixels, and what is refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarpipe.config.errors import UserError
from cifarpipe.data.picture import Picture, read_picture

ORIENTATION = 0x0112  # of EXIF


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(image: Image.Image, folder: Path, name: str = "a.png", **options: object) -> Picture:
    """Save a picture and read it for a network of 32 × 32 pixels."""
    image.save(folder / name, **options)
    return read_picture(folder / name, 32)


def test_a_picture_of_the_right_kind_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = noise(32, 32)
    found = read(Image.fromarray(pixels), tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.pixels.dtype == np.uint8
    assert found.found == "PNG, 32 × 32 pixels"
    assert found.steps == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_exif_data_says(orientation: int, tmp_path: Path) -> None:
    """Where the stored rows and columns lie in the upright picture: EXIF 2.3, section 4.6.4."""
    stored = noise(32, 32)
    turned = stored.transpose(1, 0, 2)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = read(Image.fromarray(stored), tmp_path, exif=exif)
    np.testing.assert_array_equal(found.pixels, upright)
    said = [f"turned upright (EXIF orientation {orientation})"] if orientation > 1 else []
    assert found.steps == said


def test_what_is_transparent_lies_over_white(tmp_path: Path) -> None:
    pixels = np.full((32, 32, 4), (200, 100, 0, 255), np.uint8)
    pixels[:, :10, 3] = 0
    pixels[:, 10:20, 3] = 51  # a fifth
    found = read(Image.fromarray(pixels), tmp_path)
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(found.pixels[0, 15], [244, 224, 204], atol=1)
    assert found.pixels[0, 25].tolist() == [200, 100, 0]
    assert found.steps == ["laid over white (transparent parts)"]


def test_a_transparent_colour_of_a_palette_becomes_white_too(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 16, 32))
    found = read(image, tmp_path, transparency=0)
    assert found.pixels[5, 5].tolist() == [255, 255, 255]
    assert found.pixels[5, 25].tolist() == [10, 20, 30]


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    pixels = noise(32, 32, 4)
    pixels[..., 3] = 255
    found = read(Image.fromarray(pixels), tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels[..., :3])
    assert found.steps == []


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = noise(32, 32, 1)
    found = read(Image.fromarray(grey), tmp_path)
    np.testing.assert_array_equal(found.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert found.steps == ["converted from grey to RGB"]


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    found = read(image, tmp_path)
    assert (found.pixels == (10, 20, 30)).all()
    assert found.steps == ["converted from a palette to RGB"]


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    """Pillow's own conversion would make nearly all of it white."""
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    found = read(Image.fromarray(levels), tmp_path)
    expected = np.round(levels / 65535 * 255)
    np.testing.assert_array_equal(found.pixels, np.repeat(expected[..., None], 3, axis=2))
    assert found.steps == ["brought from 16 to 8 bits", "converted from grey to RGB"]


@pytest.mark.parametrize("highest", [-1, 65536])
def test_numbers_of_no_known_range_are_refused(highest: int, tmp_path: Path) -> None:
    levels = np.full((32, 32), highest, np.int32)
    for array in (levels, levels.astype(np.float32)):
        with pytest.raises(UserError, match="range is not known: save it with 8 or 16 bits"):
            read(Image.fromarray(array), tmp_path, name="a.tiff")


@pytest.mark.parametrize("upright", [False, True])
def test_the_middle_square_is_kept(upright: bool, tmp_path: Path) -> None:
    """Columns 10 to 41 of 52: red, all around them blue."""
    pixels = np.zeros((32, 52, 3), np.uint8)
    pixels[:] = (0, 0, 255)
    pixels[:, 10:42] = noise(32, 32) // 2 + 100
    middle = pixels[:, 10:42]
    if upright:
        pixels, middle = pixels.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    found = read(Image.fromarray(np.ascontiguousarray(pixels)), tmp_path)
    np.testing.assert_array_equal(found.pixels, middle)
    assert found.steps == ["cropped to the middle 32 × 32"]


def test_reducing_averages_what_becomes_one_pixel(tmp_path: Path) -> None:
    """A fine chequerboard is grey from afar; picking pixels would make it black or white."""
    board = np.indices((320, 320)).sum(axis=0) % 2 * 255
    image = Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    found = read(image, tmp_path)
    assert found.pixels.shape == (32, 32, 3)
    assert np.abs(found.pixels.astype(int) - 127).max() <= 8
    assert found.steps == ["reduced to 32 × 32"]


def test_parts_stay_in_their_place_when_it_is_reduced_or_enlarged(tmp_path: Path) -> None:
    for side, word in ((320, "reduced"), (8, "enlarged")):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[: side // 2, side // 2 :] = (250, 120, 10)  # top right
        found = read(Image.fromarray(pixels), tmp_path)
        assert found.pixels[4, 27].tolist() == [250, 120, 10]
        assert not found.pixels[[4, 27, 27], [4, 4, 27]].any()
        assert found.steps == [f"{word} to 32 × 32"]


def test_a_photograph_of_12_million_pixels_upright(tmp_path: Path) -> None:
    """The camera lay on its side: the sky, at the left of the stored picture, belongs above."""
    pixels = np.full((3000, 4000, 3), (20, 120, 20), np.uint8)
    pixels[:, :2000] = (60, 110, 250)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = read(Image.fromarray(pixels), tmp_path, name="a.jpg", exif=exif)
    assert found.found == "JPEG, 4000 × 3000 pixels"
    assert found.steps == [
        "turned upright (EXIF orientation 6)", "cropped to the middle 3000 × 3000",
        "reduced to 32 × 32",
    ]  # fmt: skip
    np.testing.assert_allclose(found.pixels[:15], np.full((15, 32, 3), (60, 110, 250)), atol=4)
    np.testing.assert_allclose(found.pixels[17:], np.full((15, 32, 3), (20, 120, 20)), atol=4)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    found = read(frames[0], tmp_path, name="a.gif", save_all=True, append_images=frames[1:])
    assert (found.pixels == (255, 0, 0)).all()
    assert found.steps[0] == "taken from the first of 3 frames"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        read_picture(path, 32)
    said = str(refusal.value)
    assert said.startswith(f"{path} ")
    assert said.endswith("e.g. JPEG, PNG, GIF or TIFF.")
    return said


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "a.png")
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    assert "is no regular file" in refused(tmp_path / "pipe")
    assert "can't be read: File name too long" in refused(tmp_path / ("a" * 300))


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert "is empty" in refused(path)
    path.write_text("This is no picture.\n")
    assert "is no picture, or in a format that Pillow does not read" in refused(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.tiff"])
def test_a_picture_broken_off_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(noise(64, 64)).save(path)
    whole = path.read_bytes()
    for kept in (0.9, 0.5):
        path.write_bytes(whole[: int(len(whole) * kept)])
        assert "can't be read: " in refused(path) or "is no picture" in refused(path)


def test_metadata_that_decoders_warn_of_is_passed_over(tmp_path: Path) -> None:
    """Warnings are errors in tests, and would be noise on a terminal."""
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = read(image, tmp_path, transparency=bytes([255, 0]))  # one alpha for each colour
    assert (found.pixels == (10, 20, 30)).all()
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\x02\0" + b"\x0f\x01\x02\0\xff"  # broken off
    path = tmp_path / "a.jpg"
    Image.new("RGB", (32, 32), "red").save(path, exif=exif)
    assert read_picture(path, 32).steps == []


@pytest.mark.parametrize("side", [10_000, 30_000])  # where Pillow warns, and where it raises
def test_a_picture_that_would_fill_the_memory_is_refused(side: int, tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    assert "has more than 89 million pixels" in refused(path)
