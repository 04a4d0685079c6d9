"""Folders of pictures: what is read, and what each kind of unusable folder is told."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cifarpipe.data.folder import read_folder
from cifarpipe.errors import UserError
from cifarpipe.params_file import load_params

ROOT = Path(__file__).parent.parent
SIDE = 8


def pixels(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, two training pictures and one test picture each."""
    root = tmp_path / "pictures"
    for seed, name in enumerate(("cat", "dog")):
        for number in range(2):
            save(root / "train" / name / f"{number}.png", pixels(10 * seed + number))
        save(root / "test" / name / "a.png", pixels(10 * seed + 5))
    return root


def refused(root: Path) -> str:
    with pytest.raises(UserError) as refusal:
        read_folder(str(root))
    return str(refusal.value)


def test_classes_and_files_are_read_in_alphabetical_order(pictures: Path) -> None:
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


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_does_not_depend_on_the_file_system(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    iterdir = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda folder: iter(sorted(iterdir(folder), reverse=backwards))
    )
    raw = read_folder(str(pictures))
    assert raw.classes == ["cat", "dog"]
    assert raw.train.files == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_hidden_files_and_folders_are_passed_over(pictures: Path) -> None:
    before = read_folder(str(pictures))
    (pictures / "train/cat/.DS_Store").write_bytes(b"x")
    (pictures / "train/cat/Thumbs.db").write_bytes(b"x")
    (pictures / "train/cat/._0.png").write_bytes(b"x")
    (pictures / "train/.cache").mkdir()
    (pictures / "train/README.txt").write_text("about these pictures")
    (pictures / "test/dog/.ipynb_checkpoints").mkdir()
    after = read_folder(str(pictures))
    assert after.train.files == before.train.files
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.gif", "x.tif", "x.webp", "x.ppm", "x.JPG"])
def test_any_format_that_pillow_reads_will_do(pictures: Path, name: str) -> None:
    flat = np.full((SIDE, SIDE, 3), (200, 120, 40), np.uint8)  # lossy formats keep one colour
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


def test_a_relative_folder_is_looked_up_in_the_raw_data_root(
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


def test_a_class_may_have_any_name(pictures: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    for half in ("train", "test"):
        save(pictures / half / name / "1.png", pixels(40))
    raw = read_folder(str(pictures))
    assert raw.classes == [name, "cat", "dog"]
    assert raw.test.files is not None
    assert raw.test.files[0] == f"{name}/1.png"


# What each spoils, and what must be said of it. Every one is also put to the real command below.
def _nothing_there(root: Path) -> list[str]:
    root.rename(root.with_name("elsewhere"))
    return [f"data.folder is '{root}'", f"there is no folder {root}", "$CIFARPIPE_DATA"]


def _no_train(root: Path) -> list[str]:
    (root / "train").rename(root / "training")
    return [f"{root} has no folder train/", "Wanted: train/<class>/* and test/<class>/*"]


def _no_test(root: Path) -> list[str]:
    (root / "test").rename(root / "testing")
    return [f"{root} has no folder test/", "Wanted: train/<class>/* and test/<class>/*"]


def _no_classes(root: Path) -> list[str]:
    for half in ("train", "test"):
        (root / half).rename(root / f"old {half}")
        (root / half).mkdir()
    return [f"{root}/train has no class folders"]


def _class_in_train_alone(root: Path) -> list[str]:
    save(root / "train/emu/1.png", pixels(1))
    return ["classes that stand in only one of train/ and test/: emu", "pictures in both"]


def _empty_class(root: Path) -> list[str]:
    (root / "train/emu").mkdir()
    (root / "test/emu").mkdir()
    (root / "test/emu/.keep").touch()
    return ["(2)", "train/emu: has no pictures", "test/emu: has no pictures"]


def _text_file(root: Path) -> list[str]:
    (root / "train/cat/notes.jpg").write_text("cats are nice")
    return ["(1)", "train/cat/notes.jpg: not a picture", "Mend or remove these files"]


def _empty_file(root: Path) -> list[str]:
    (root / "test/dog/a.png").write_bytes(b"")
    return ["(1)", "test/dog/a.png: not a picture"]


def _truncated_jpeg(root: Path) -> list[str]:
    whole = io.BytesIO()
    Image.fromarray(pixels(3, 64, 64)).save(whole, "JPEG")
    (root / "train/dog/cut.jpg").write_bytes(whole.getvalue()[:1000])
    return ["train/dog/cut.jpg: ", "truncated"]


def _truncated_png(root: Path) -> list[str]:
    path = root / "train/dog/0.png"
    path.write_bytes(path.read_bytes()[:100])
    return ["(1)", "train/dog/0.png: "]


def _broken_dds(root: Path) -> list[str]:
    """Pillow answers an unknown pixel format with a RuntimeError, not an OSError."""
    path = root / "train/dog/x.dds"
    save(path, pixels(3))
    spoilt = bytearray(path.read_bytes())
    spoilt[80:84] = (2).to_bytes(4, "little")  # pixel format flags
    path.write_bytes(spoilt)
    return ["(1)", "train/dog/x.dds: Unknown pixel format flags 2"]


def _sixteen_bits(root: Path) -> list[str]:
    """Pillow would clip them to 8 bits, all white."""
    deep = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 1000
    Image.fromarray(deep).save(root / "train/cat/deep.png")
    return ["(1)", "train/cat/deep.png: ", "8 bits"]


def _two_sizes(root: Path) -> list[str]:
    save(root / "test/cat/big.png", pixels(1, 16, 16))
    return ["(1)", "test/cat/big.png: 16 × 16, others are 8 × 8", "all of one size"]


def _not_square(root: Path) -> list[str]:
    save(root / "train/cat/wide.png", pixels(1, height=4, width=SIDE))
    return ["(1)", "train/cat/wide.png: 8 × 4, not square"]


def _name_that_is_not_text(root: Path) -> list[str]:
    latin1 = os.fsencode(root / "test/cat") + b"/caf\xe9.png"
    Path(os.fsdecode(latin1)).write_bytes((root / "test/cat/a.png").read_bytes())
    return ["(1)", "test/'cat/caf\\udce9.png': the name has a control character or is not UTF-8"]


def _name_of_two_lines(root: Path) -> list[str]:
    save(root / "test/cat/two\nlines.png", pixels(2))
    return ["(1)", "test/'cat/two\\nlines.png': the name has a control character"]


def _class_of_two_lines(root: Path) -> list[str]:
    for half in ("train", "test"):
        save(root / half / "two\nlines/1.png", pixels(2))
    return [f"{root}/train: class 'two\\nlines': the name has a control character", "Rename"]


def _class_that_is_not_text(root: Path) -> list[str]:
    latin1 = os.fsdecode(os.fsencode(root / "test") + b"/caf\xe9")
    save(Path(latin1) / "1.png", pixels(2))
    return [f"{root}/test: class 'caf\\udce9': the name has a control character or is not UTF-8"]


def _bomb(root: Path) -> list[str]:
    """Three kilobytes that Pillow would make 48 MB of."""
    path = root / "train/cat/bomb.png"
    Image.new("1", (4000, 4000)).save(path, optimize=True)
    assert path.stat().st_size < 4000
    return ["(1)", "train/cat/bomb.png: 4000 × 4000, more than 1,048,576 pixels"]


def _bomb_that_pillow_warns_of(root: Path) -> list[str]:
    Image.new("1", (10_000, 10_000)).save(root / "train/cat/bomb.png", optimize=True)
    return ["(1)", "train/cat/bomb.png: ", "decompression bomb"]


def _pipe(root: Path) -> list[str]:
    """Whoever opens it to read waits for a writer."""
    os.mkfifo(root / "test/dog/b.png")
    return ["(1)", "test/dog/b.png: not a file"]


def _huge_file(root: Path) -> list[str]:
    with (root / "test/dog/b.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(2**35)  # sparse; more than there is memory
    return ["(1)", "test/dog/b.webp: 34,359,738,368 bytes, more than 33,554,432"]


def _link_to_nowhere(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to(root / "nowhere.png")
    return ["(1)", "test/dog/b.png: not a file, or a link that leads nowhere"]


def _link_to_itself(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to("b.png")
    return ["(1)", "test/dog/b.png: "]


def _link_to_what_is_no_picture(root: Path) -> list[str]:
    (root / "test/dog/b.png").symlink_to("/etc/passwd")
    return ["(1)", "test/dog/b.png: not a picture"]


SPOILT = [
    _nothing_there, _no_train, _no_test, _no_classes, _class_in_train_alone, _empty_class,
    _text_file, _empty_file, _truncated_jpeg, _truncated_png, _broken_dds, _sixteen_bits,
    _two_sizes, _not_square, _name_that_is_not_text, _name_of_two_lines, _class_of_two_lines,
    _class_that_is_not_text, _bomb,
    _bomb_that_pillow_warns_of, _pipe, _huge_file, _link_to_nowhere, _link_to_itself,
    _link_to_what_is_no_picture,
]  # fmt: skip
Spoil = Callable[[Path], list[str]]
spoilt = pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.strip("_"))


@spoilt
def test_what_cannot_be_used_is_refused_and_named(pictures: Path, spoil: Spoil) -> None:
    wanted = spoil(pictures)
    message = refused(pictures)
    for part in wanted:
        assert part in message


def test_all_faults_are_named_at_once(pictures: Path) -> None:
    _text_file(pictures)
    _two_sizes(pictures)
    _not_square(pictures)
    _empty_class(pictures)
    message = refused(pictures)
    assert "has pictures that can't be used (5):" in message
    assert message.count("\n  - ") == 5
    assert "… and" not in message


def test_no_more_than_ten_faults_are_listed(pictures: Path) -> None:
    for number in range(10):
        (pictures / f"train/cat/{number}.jpg").write_text("no picture")
    ten = refused(pictures)
    assert ten.count("\n  - ") == 10
    assert "… and" not in ten
    for number in range(3):
        (pictures / f"test/dog/{number}.jpg").write_text("no picture")
    message = refused(pictures)
    assert "(13):" in message
    assert message.count("\n  - ") == 10
    assert "\n  … and 3 more\n" in message


def write_params(folder: Path, pictures: Path) -> None:
    content = yaml.safe_load((ROOT / "params.demo.yaml").read_text(encoding="utf-8"))
    content["data"] = {
        "source": "folder",
        "folder": str(pictures),
        "val_size": 2,
        "train_size": None,
        "test_size": None,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture
def workspace(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to run the stage in, with parameters that name the pictures."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    write_params(folder, pictures)
    monkeypatch.chdir(folder)
    return folder


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@spoilt
def test_the_stage_refuses_it_too_and_leaves_nothing(
    pictures: Path,
    workspace: Path,
    spoil: Spoil,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cifarpipe.command import run
    from stages.prepare import main

    wanted = spoil(pictures)
    monkeypatch.setattr(sys, "argv", ["prepare"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    for part in wanted:
        assert part in said
    assert left_in(workspace) == ["params.yaml"]


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "stages.prepare"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_ends_with_2_a_message_and_nothing_left(
    pictures: Path, workspace: Path
) -> None:
    wanted = [*_text_file(pictures)[1:], *_two_sizes(pictures)[1:]]
    done = command(workspace)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    for part in wanted:
        assert part in done.stderr
    assert left_in(workspace) == ["params.yaml"]


def test_the_command_reads_a_folder_whatever_its_classes_are_called(
    pictures: Path, workspace: Path
) -> None:
    for name in ("<img src=x onerror=alert(1)>", "$a", "日本"):
        for half in ("train", "test"):
            save(pictures / half / name / "1.png", pixels(40))
    done = command(workspace)
    assert done.returncode == 0, done.stderr
    assert "folder: 5 classes, 5 train, 2 val, 5 test" in done.stdout
    assert not [path for path in left_in(workspace) if ".partial" in path]
    assert load_params(workspace / "params.yaml").data.folder == str(pictures)
    assert "data/prepared/dataset.json" in left_in(workspace)
