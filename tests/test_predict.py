"""`cifarpipe predict`: the files it finds, the table it writes, and what it refuses."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cifarpipe.cli.main import main
from cifarpipe.cli.predict import find_files, predict_files
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.data.picture import open_picture
from cifarpipe.models.build import build_model
from cifarpipe.networks.checkpoint import load_model, save_model
from tests.support.origins import make_origin

ROOT = Path(__file__).parents[1]
CLASSES = ["cat", 'a, "b"', "007"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, demo_params: Params) -> Path:
    """Return the file of an untrained network of three classes."""
    torch.manual_seed(0)
    architecture = demo_params.models["convmixer"].architecture
    network = build_model(architecture, num_classes=len(CLASSES), image_size=32)
    with torch.no_grad():  # make the predictions of different colours differ
        colours = torch.randn(50, 3, 1, 1).expand(-1, -1, 32, 32)
        network.head.bias -= network.eval()(colours).mean(dim=0)
    origin = make_origin("convmixer", CLASSES, architecture=architecture, mean=MEAN, std=STD)
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(file, network.state_dict(), origin)
    return file


@pytest.fixture
def folder(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a study with 30 pictures of several shapes in photos/, and return it."""
    text = (ROOT / "params.demo.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("batch_size: 500", "batch_size: 7"))
    (tmp_path / "artifacts/convmixer").mkdir(parents=True)
    (tmp_path / "artifacts/convmixer/model.safetensors").symlink_to(weights)
    rng = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / f"photos/{'ab'[number % 2]}/{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (32, 32, 3) if number % 3 else (40, 50, 3)
        colour, noise = rng.integers(0, 200, 3), rng.integers(0, 56, shape)
        Image.fromarray((colour + noise).astype(np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(file: str) -> pd.DataFrame:
    return pd.read_csv(file, dtype={"class": str})


def test_probabilities_equal_those_of_single_images(folder: Path, weights: Path) -> None:
    assert predict_files(["photos"], "convmixer", None)
    table = read("predictions_convmixer.csv")
    assert table.columns.tolist() == ["file", "class", "confidence", *(f"p_{c}" for c in CLASSES)]
    assert table.file.tolist() == [
        f"photos/{kind}/{number:02d}.png"
        for first, kind in enumerate("ab")
        for number in range(first, 30, 2)
    ]
    network, _ = load_model(weights, torch.device("cpu"))
    for row in table.to_dict("records"):
        pixels = open_picture(Path(row["file"])).resized(32).pixels
        batch = torch.tensor((pixels / 255 - MEAN) / STD, dtype=torch.float32)
        with torch.no_grad():
            logits = network(batch.permute(2, 0, 1)[None])[0].double().numpy()
        expected = np.exp(logits) / np.exp(logits).sum()
        found = [row[f"p_{name}"] for name in CLASSES]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert row["class"] == CLASSES[int(np.argmax(expected))]
        assert row["confidence"] == max(found)
    assert set(table["class"]) == set(CLASSES)


def test_unreadable_files_are_listed_and_the_rest_classified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (folder / f"photos/b/{number:02d}.txt").write_text("no image")
    monkeypatch.setattr(sys, "argv", ["cifarpipe", "predict", "photos", "--model", "convmixer"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "for 30 of 42 files: predictions_convmixer.csv" in printed.out
    listed = [line for line in printed.err.splitlines() if line.startswith("not read: ")]
    assert len(listed) == 10
    assert listed[0].startswith("not read: photos/b/00.txt: is not an image")
    assert "… and 2 more" in printed.err
    assert len(read("predictions_convmixer.csv")) == 30


def test_without_a_readable_file_no_table_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("note.txt").write_text("no image")
    Path("before.csv").write_text("kept")
    assert not predict_files(["note.txt"], "convmixer", Path("before.csv"))
    assert Path("before.csv").read_text() == "kept"
    printed = capsys.readouterr()
    assert printed.out == "None of 1 files could be read; before.csv was not written.\n"
    assert "not read: note.txt: is not an image" in printed.err


def test_unusual_names_are_escaped(folder: Path) -> None:
    """One row per file, whatever reads the table."""
    names = [b"line\nend.png", b"return\r.png", b"not UTF-8 \xff.png", 'é, "ü".png'.encode()]
    for name in names:
        shutil.copy("photos/a/00.png", b"photos/" + name)
    (folder / "photos/broken\t.png").touch()
    assert not predict_files(["photos"], "convmixer", None)
    with Path("predictions_convmixer.csv").open(encoding="utf-8", newline="") as file:
        assert sum(1 for _ in file) == 1 + 34
    found = set(read("predictions_convmixer.csv").file)
    assert {
        r"photos/line\nend.png", r"photos/return\r.png", r"photos/not UTF-8 \udcff.png",
        'photos/é, "ü".png',
    } <= found  # fmt: skip


def test_files_folders_and_patterns_are_found_once(folder: Path) -> None:
    (folder / "photos/.hidden").mkdir()
    (folder / "photos/.hidden/x.png").touch()
    (folder / "photos/a/.y.png").touch()
    (folder / "photos/a/Thumbs.db").touch()
    found = find_files(["photos/b/*1.png", "photos/a", "photos/b/01.png"], besides=Path("x.csv"))
    names = [path.as_posix() for path in found]
    assert names[:3] == ["photos/b/01.png", "photos/b/11.png", "photos/b/21.png"]
    assert names[3:] == [f"photos/a/{number:02d}.png" for number in range(0, 30, 2)]


def test_links_are_followed_and_broken_ones_found(folder: Path) -> None:
    (folder / "album").mkdir()
    (folder / "album/linked").symlink_to(folder / "photos/a")
    (folder / "album/back").symlink_to(folder / "album")
    (folder / "album/broken.png").symlink_to("nowhere.png")
    names = [path.as_posix() for path in find_files(["album"], besides=Path("x.csv"))]
    assert names[0] == "album/broken.png"
    assert names[1:] == [f"album/linked/{number:02d}.png" for number in range(0, 30, 2)]
    assert not predict_files(["album"], "convmixer", None)
    assert len(read("predictions_convmixer.csv")) == 15


def test_pattern_of_folders_means_what_they_contain(folder: Path) -> None:
    assert len(find_files(["photos/*"], besides=Path("x.csv"))) == 30


def test_own_table_is_no_input(folder: Path) -> None:
    for _ in range(2):
        assert predict_files(["photos"], "convmixer", Path("photos/found.csv"))
    assert len(read("photos/found.csv")) == 30
    before = Path("photos/found.csv").read_bytes()
    with pytest.raises(UserError, match=r"photos/found.csv is the output file"):
        predict_files(["photos/found.csv"], "convmixer", Path("photos/found.csv"))
    assert Path("photos/found.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("paths", "model", "out", "expected"),
    [
        (["nowhere"], "convmixer", None, "nowhere does not exist"),
        (["photos/*.png"], "convmixer", None, "photos/*.png does not exist"),
        (["empty"], "convmixer", None, "empty has no files"),
        (["photos"], "vit", None, "artifacts/vit/model.safetensors"),
        (["photos"], "vitt", None, "unknown model 'vitt'"),
        (["photos"], "convmixer", Path("a.txt"), "allowed: the name of a file that ends in .csv"),
        (["photos"], "convmixer", Path("photos"), "photos is a folder"),
        (["photos"], "convmixer", Path("folder.csv"), "folder.csv is a folder"),
        (["photos"], "convmixer", Path("note.txt/a.csv"), "can't be written: Not a directory"),
        (["photos"], "convmixer", Path("n" * 300 + ".csv"), "can't be written: File name too long"),
        (["photos", ""], "convmixer", None, "'' does not exist"),
    ],
)
def test_mistake_is_refused_and_nothing_written(
    paths: list[str], model: str, out: Path | None, expected: str, folder: Path
) -> None:
    for name in ("empty", "folder.csv"):
        (folder / name).mkdir()
    (folder / "note.txt").touch()
    before = {path.name for path in folder.iterdir()}
    with pytest.raises((UserError, OSError)) as refused:
        predict_files(paths, model, out)
    assert expected in str(refused.value)
    assert {path.name for path in folder.iterdir()} == before
