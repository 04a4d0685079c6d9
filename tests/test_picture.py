"""Conversion of any image file to a network's input, and the files that are refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarpipe.config.errors import UserError
from cifarpipe.data.picture import Picture, open_picture

ORIENTATION = 0x0112  # of EXIF


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(image: Image.Image, folder: Path, name: str = "a.png", **options: object) -> Picture:
    """Save an image and read it for a network of 32 × 32 pixels."""
    image.save(folder / name, **options)
    return open_picture(folder / name).resized(32)


def test_suitable_image_is_unchanged(tmp_path: Path) -> None:
    pixels = noise(32, 32)
    found = read(Image.fromarray(pixels), tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.pixels.dtype == np.uint8
    assert found.found == "PNG, 32 × 32 pixels"
    assert found.steps == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_rotated_by_exif_orientation(orientation: int, tmp_path: Path) -> None:
    """Expected rows and columns of the upright image: EXIF 2.3, section 4.6.4."""
    stored = noise(32, 32)
    transposed = stored.transpose(1, 0, 2)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: transposed, 6: transposed[:, ::-1], 7: transposed[::-1, ::-1], 8: transposed[::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = read(Image.fromarray(stored), tmp_path, exif=exif)
    np.testing.assert_array_equal(found.pixels, upright)
    expected = [f"rotated upright (EXIF orientation {orientation})"] if orientation > 1 else []
    assert found.steps == expected


def test_transparent_parts_are_put_on_white(tmp_path: Path) -> None:
    pixels = np.full((32, 32, 4), (200, 100, 0, 255), np.uint8)
    pixels[:, :10, 3] = 0
    pixels[:, 10:20, 3] = 51  # a fifth
    found = read(Image.fromarray(pixels), tmp_path)
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(found.pixels[0, 15], [244, 224, 204], atol=1)
    assert found.pixels[0, 25].tolist() == [200, 100, 0]
    assert found.steps == ["put on white (transparent parts)"]


def test_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, 16, 32))
    found = read(image, tmp_path, transparency=0)
    assert found.pixels[5, 5].tolist() == [255, 255, 255]
    assert found.pixels[5, 25].tolist() == [10, 20, 30]


def test_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    pixels = noise(32, 32, 4)
    pixels[..., 3] = 255
    found = read(Image.fromarray(pixels), tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels[..., :3])
    assert found.steps == []


def test_grey_is_converted_to_rgb(tmp_path: Path) -> None:
    grey = noise(32, 32, 1)
    found = read(Image.fromarray(grey), tmp_path)
    np.testing.assert_array_equal(found.pixels, np.repeat(grey[..., None], 3, axis=2))
    assert found.steps == ["converted from grey to RGB"]


def test_palette_is_converted_to_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    found = read(image, tmp_path)
    assert (found.pixels == (10, 20, 30)).all()
    assert found.steps == ["converted from a palette to RGB"]


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    """Pillow's own conversion would clip nearly all of it to white."""
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    found = read(Image.fromarray(levels), tmp_path)
    expected = np.round(levels / 65535 * 255)
    np.testing.assert_array_equal(found.pixels, np.repeat(expected[..., None], 3, axis=2))
    assert found.steps == ["converted from 16 to 8 bits", "converted from grey to RGB"]


def test_transparent_level_of_16_bits_becomes_white(tmp_path: Path) -> None:
    levels = np.full((32, 32), 40_000, np.uint16)
    levels[:, :16] = 1234
    found = read(Image.fromarray(levels), tmp_path, transparency=1234)
    assert found.pixels[5, 5].tolist() == [255] * 3
    assert found.pixels[5, 25].tolist() == [round(40_000 / 257)] * 3


@pytest.mark.parametrize("highest", [-1, 65536])
def test_values_of_unknown_range_are_refused(highest: int, tmp_path: Path) -> None:
    levels = np.full((32, 32), highest, np.int32)
    for array in (levels, levels.astype(np.float32)):
        with pytest.raises(
            UserError, match="holds values of unknown range: save it with 8 or 16 bits"
        ):
            read(Image.fromarray(array), tmp_path, name="a.tiff")


@pytest.mark.parametrize("upright", [False, True])
def test_central_square_is_kept(upright: bool, tmp_path: Path) -> None:
    """Noise in columns 10 to 41 of 52, blue on both sides."""
    pixels = np.zeros((32, 52, 3), np.uint8)
    pixels[:] = (0, 0, 255)
    pixels[:, 10:42] = noise(32, 32) // 2 + 100
    middle = pixels[:, 10:42]
    if upright:
        pixels, middle = pixels.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    found = read(Image.fromarray(np.ascontiguousarray(pixels)), tmp_path)
    np.testing.assert_array_equal(found.pixels, middle)
    assert found.steps == ["cropped to the central 32 × 32"]


def test_reducing_averages_pixels(tmp_path: Path) -> None:
    """A fine chequerboard becomes grey; sampling single pixels would make it black or white."""
    board = np.indices((320, 320)).sum(axis=0) % 2 * 255
    image = Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    found = read(image, tmp_path)
    assert found.pixels.shape == (32, 32, 3)
    assert np.abs(found.pixels.astype(int) - 127).max() <= 8
    assert found.steps == ["reduced to 32 × 32"]


def test_resizing_keeps_positions(tmp_path: Path) -> None:
    for side, word in ((320, "reduced"), (8, "enlarged")):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[: side // 2, side // 2 :] = (250, 120, 10)  # top right
        found = read(Image.fromarray(pixels), tmp_path)
        assert found.pixels[4, 27].tolist() == [250, 120, 10]
        assert not found.pixels[[4, 27, 27], [4, 4, 27]].any()
        assert found.steps == [f"{word} to 32 × 32"]


def test_large_rotated_photograph_becomes_upright(tmp_path: Path) -> None:
    """The sky is at the left of the stored image, and at the top of the upright one."""
    pixels = np.full((3000, 4000, 3), (20, 120, 20), np.uint8)
    pixels[:, :2000] = (60, 110, 250)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = read(Image.fromarray(pixels), tmp_path, name="a.jpg", exif=exif)
    assert found.found == "JPEG, 4000 × 3000 pixels"
    assert found.steps == [
        "rotated upright (EXIF orientation 6)", "cropped to the central 3000 × 3000",
        "reduced to 32 × 32",
    ]  # fmt: skip
    np.testing.assert_allclose(found.pixels[:15], np.full((15, 32, 3), (60, 110, 250)), atol=4)
    np.testing.assert_allclose(found.pixels[17:], np.full((15, 32, 3), (20, 120, 20)), atol=4)


def test_first_frame_of_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    found = read(frames[0], tmp_path, name="a.gif", save_all=True, append_images=frames[1:])
    assert (found.pixels == (255, 0, 0)).all()
    assert found.steps[0] == "first of 3 frames"


def refused(path: Path) -> str:
    """Return the message about a file that must be refused."""
    with pytest.raises(UserError) as refusal:
        open_picture(path).resized(32)
    message = str(refusal.value)
    assert message.startswith(f"{path} ")
    assert message.endswith("e.g. JPEG, PNG, GIF or TIFF.")
    return message


def test_missing_and_special_files_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "a.png")
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # reading it would block
    assert "is not a regular file" in refused(tmp_path / "pipe")
    assert "can't be read: File name too long" in refused(tmp_path / ("a" * 300))


def test_file_without_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert "is empty" in refused(path)
    path.write_text("This is not an image.\n")
    assert "is not an image, or has a format that Pillow does not read" in refused(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.tiff"])
def test_truncated_image_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(noise(64, 64)).save(path)
    whole = path.read_bytes()
    for kept in (0.9, 0.5):
        path.write_bytes(whole[: int(len(whole) * kept)])
        assert "can't be read: " in refused(path) or "is not an image" in refused(path)


def test_warnings_about_metadata_are_ignored(tmp_path: Path) -> None:
    """Warnings are errors in tests."""
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = read(image, tmp_path, transparency=bytes([255, 0]))  # one alpha for each colour
    assert (found.pixels == (10, 20, 30)).all()
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\x02\0" + b"\x0f\x01\x02\0\xff"  # truncated
    path = tmp_path / "a.jpg"
    Image.new("RGB", (32, 32), "red").save(path, exif=exif)
    assert open_picture(path).resized(32).steps == []


@pytest.mark.parametrize(
    "side", [10_000, 30_000]
)  # Pillow warns of the first and raises for the second
def test_image_that_would_exhaust_memory_is_refused(side: int, tmp_path: Path) -> None:
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
