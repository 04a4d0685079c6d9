"""A small folder of images, and ways to make it invalid."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8


def pixels(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path)


def make_images(root: Path) -> Path:
    """Write two classes with two training images and one test image each."""
    for seed, name in enumerate(("cat", "dog")):
        for number in range(2):
            save(root / "train" / name / f"{number}.png", pixels(10 * seed + number))
        save(root / "test" / name / "a.png", pixels(10 * seed + 5))
    return root


# Each of these makes a valid folder invalid, and returns parts of the expected message.
def missing_folder(root: Path) -> list[str]:
    root.rename(root.with_name("elsewhere"))
    return [f"data.folder is '{root}', but there is no folder {root}.\nCorrect data.folder."]


def file_instead_of_folder(root: Path) -> list[str]:
    root.rename(root.with_name("elsewhere"))
    root.touch()
    return [f"data.folder is '{root}', but {root} is a file.\nCorrect data.folder."]


def no_train(root: Path) -> list[str]:
    (root / "train").rename(root / "training")
    return [f"{root} has no folder train/", "Expected: train/<class>/* and test/<class>/*"]


def no_test(root: Path) -> list[str]:
    (root / "test").rename(root / "testing")
    return [f"{root} has no folder test/", "Expected: train/<class>/* and test/<class>/*"]


def capital_letter(root: Path) -> list[str]:
    (root / "train").rename(root / "Train")
    return [f"{root} has no folder train/", "test/<class>/*, in lowercase"]


def class_of_two_spellings(root: Path) -> list[str]:
    save(root / "train/cafe\u0301/1.png", pixels(1))
    save(root / "train/caf\u00e9/1.png", pixels(2))
    return [f"{root}/train: two folders are named caf\u00e9", "Put their images into one"]


def no_classes(root: Path) -> list[str]:
    for half in ("train", "test"):
        (root / half).rename(root / f"old {half}")
        (root / half).mkdir()
    return [f"{root}/train has no class folders"]


def class_in_train_only(root: Path) -> list[str]:
    save(root / "train/emu/1.png", pixels(1))
    save(root / "train/ant/1.png", pixels(1))
    return ["some classes are only in train/: ant, emu.", "images in both"]


def other_classes_in_test(root: Path) -> list[str]:
    (root / "test/cat").rename(root / "test/kitten")
    return ["some classes are only in train/: cat; only in test/: kitten."]


def empty_class(root: Path) -> list[str]:
    (root / "train/emu").mkdir()
    (root / "test/emu").mkdir()
    (root / "test/emu/.keep").touch()
    return ["(2 problems)", "train/emu: has no images", "test/emu: has no images"]


def folder_in_class(root: Path) -> list[str]:
    (root / "train/cat/kittens").mkdir()
    return ["(1 problem)", "train/cat/kittens: a folder; images in it are not read"]


def text_file(root: Path) -> list[str]:
    (root / "train/cat/notes.jpg").write_text("cats are nice")
    return ["(1 problem)", "train/cat/notes.jpg: is not an image", "Fix or remove these files"]


def empty_file(root: Path) -> list[str]:
    (root / "test/dog/a.png").write_bytes(b"")
    return ["(1 problem)", "test/dog/a.png: is empty"]


def truncated_jpeg(root: Path) -> list[str]:
    whole = io.BytesIO()
    Image.fromarray(pixels(3, 64, 64)).save(whole, "JPEG")
    (root / "train/dog/cut.jpg").write_bytes(whole.getvalue()[:1000])
    return ["train/dog/cut.jpg: ", "truncated"]


def truncated_png(root: Path) -> list[str]:
    path = root / "train/dog/0.png"
    path.write_bytes(path.read_bytes()[:100])
    return ["(1 problem)", "train/dog/0.png: "]


def broken_dds(root: Path) -> list[str]:
    """Pillow raises NotImplementedError for an unknown pixel format."""
    path = root / "train/dog/x.dds"
    save(path, pixels(3))
    content = bytearray(path.read_bytes())
    content[80:84] = (2).to_bytes(4, "little")  # pixel format flags
    path.write_bytes(content)
    return ["(1 problem)", "train/dog/x.dds: can't be read: Unknown pixel format flags 2"]


def damaged_im(root: Path) -> list[str]:
    """A size on which Pillow's decoder of this format raises TypeError."""
    header = b"Image type: RGB image\r\nImage size (x*y): 8*8.\nFile size (no of images): 1\r\n"
    (root / "train/dog/x.im").write_bytes(header.ljust(511, b"\0") + b"\x1a" + bytes(3 * 8 * 8))
    return ["(1 problem)", "train/dog/x.im: can't be read: ", "integer"]


def sixteen_bits(root: Path) -> list[str]:
    """Pillow would clip the values to 8 bits: all white."""
    deep = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 1000
    Image.fromarray(deep).save(root / "train/cat/deep.png")
    return ["(1 problem)", "train/cat/deep.png: is grey with more than 8 bits", "data.image_size"]


def two_sizes(root: Path) -> list[str]:
    save(root / "test/cat/big.png", pixels(1, 16, 16))
    return ["(1 problem)", "test/cat/big.png: 16 × 16, others are 8 × 8", "all of one size"]


def not_square(root: Path) -> list[str]:
    save(root / "train/cat/wide.png", pixels(1, height=4, width=SIDE))
    return ["train/cat/wide.png: is 8 × 4, not square\n", "or set `data.image_size`, which crops"]


def name_that_is_not_text(root: Path) -> list[str]:
    latin1 = os.fsencode(root / "test/cat") + b"/caf\xe9.png"
    Path(os.fsdecode(latin1)).write_bytes((root / "test/cat/a.png").read_bytes())
    return [
        "(1 problem)",
        "test/'cat/caf\\udce9.png': the name has a control character or is not UTF-8",
    ]


def name_of_two_lines(root: Path) -> list[str]:
    save(root / "test/cat/two\nlines.png", pixels(2))
    return ["(1 problem)", "test/'cat/two\\nlines.png': the name has a control character"]


def class_of_two_lines(root: Path) -> list[str]:
    for half in ("train", "test"):
        save(root / half / "two\nlines/1.png", pixels(2))
    return [f"{root}/train: class 'two\\nlines': the name has a control character", "Rename"]


def class_that_is_not_text(root: Path) -> list[str]:
    latin1 = os.fsdecode(os.fsencode(root / "test") + b"/caf\xe9")
    save(Path(latin1) / "1.png", pixels(2))
    return [f"{root}/test: class 'caf\\udce9': the name has a control character or is not UTF-8"]


def bomb(root: Path) -> list[str]:
    """A file of three kilobytes that Pillow would unpack to 48 MB."""
    path = root / "train/cat/bomb.png"
    Image.new("1", (4000, 4000)).save(path, optimize=True)
    assert path.stat().st_size < 4000
    return ["(1 problem)", "train/cat/bomb.png: is 4000 × 4000, more than 1,048,576 pixels"]


def bomb_beyond_pillows_limit(root: Path) -> list[str]:
    Image.new("1", (10_000, 10_000)).save(root / "train/cat/bomb.png", optimize=True)
    return ["(1 problem)", "train/cat/bomb.png: has more than 89 million pixels"]


def pipe(root: Path) -> list[str]:
    """Opening a pipe to read blocks until there is a writer."""
    os.mkfifo(root / "test/dog/b.png")
    return ["(1 problem)", "test/dog/b.png: is not a regular file"]


def huge_file(root: Path) -> list[str]:
    with (root / "test/dog/b.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(2**35)  # sparse; more than the memory
    return ["(1 problem)", "test/dog/b.webp: 34,359,738,368 bytes, more than 33,554,432"]


def dangling_link(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to(root / "missing.png")
    return ["(1 problem)", "test/dog/b.png: No such file or directory"]


def link_to_itself(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to("b.png")
    return ["(1 problem)", "test/dog/b.png: Too many levels of symbolic links"]


def link_to_text_file(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to("/etc/passwd")
    return ["(1 problem)", "test/dog/b.png: is not an image"]


DAMAGES = [
    missing_folder, file_instead_of_folder, no_train, capital_letter,
    other_classes_in_test, class_of_two_spellings, no_test, no_classes, class_in_train_only,
    empty_class,
    folder_in_class, text_file, empty_file, truncated_jpeg, truncated_png, broken_dds,
    damaged_im, sixteen_bits,
    two_sizes, not_square, name_that_is_not_text, name_of_two_lines, class_of_two_lines,
    class_that_is_not_text, bomb,
    bomb_beyond_pillows_limit, pipe, huge_file, dangling_link, link_to_itself,
    link_to_text_file,
]  # fmt: skip
Damage = Callable[[Path], list[str]]
