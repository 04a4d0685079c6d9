"""The state on disk: whole or not there, the newest whole one wins, one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarpipe.config.errors import UserError
from cifarpipe.training.resume import HEADER, LOCK, SLOTS, ResumeStore, fingerprint


@pytest.fixture
def resume(tmp_path: Path) -> ResumeStore:
    store = ResumeStore(tmp_path / "vit", "abc")
    store.folder.mkdir(parents=True)
    return store


def state(epoch: int) -> dict[str, object]:
    return {"weights": torch.full((1000,), float(epoch)), "rows": [{"epoch": epoch}], "none": None}


def save(resume: ResumeStore, *epochs: int) -> None:
    for epoch in epochs:
        resume.save(epoch, state(epoch))
    resume.wait()


def epoch_of(found: dict[str, object] | None) -> object:
    assert found is not None
    weights = found["weights"]
    assert isinstance(weights, torch.Tensor)
    return int(weights[0])


def test_nothing_saved_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert ResumeStore(tmp_path / "nowhere", "abc").load() is None


def test_the_newest_state_comes_back(resume: ResumeStore) -> None:
    save(resume, 1)
    assert epoch_of(resume.load()) == 1
    save(resume, 2, 3)
    found = resume.load()
    assert epoch_of(found) == 3
    assert found is not None
    assert found["rows"] == [{"epoch": 3}]
    assert found["none"] is None


@pytest.mark.parametrize("kept", [0, 3, HEADER.size - 1, HEADER.size, 500, -1])
def test_of_a_half_written_file_the_one_before_is_used(resume: ResumeStore, kept: int) -> None:
    save(resume, 1, 2)
    newest = resume.folder / SLOTS[0]
    newest.write_bytes(newest.read_bytes()[:kept])
    assert epoch_of(resume.load()) == 1


@pytest.mark.parametrize("place", [0, 9, 13, HEADER.size + 1, -1])
def test_of_a_file_with_a_wrong_bit_the_one_before_is_used(resume: ResumeStore, place: int) -> None:
    save(resume, 1, 2)
    newest = resume.folder / SLOTS[0]
    content = bytearray(newest.read_bytes())
    content[place] ^= 4
    newest.write_bytes(content)
    assert epoch_of(resume.load()) == 1


def test_two_damaged_files_are_nothing_to_go_on_from(resume: ResumeStore) -> None:
    save(resume, 1, 2)
    for slot in SLOTS:
        (resume.folder / slot).write_bytes(b"")
    assert resume.load() is None


def test_what_is_saved_is_the_state_of_that_moment(resume: ResumeStore) -> None:
    """Training goes on, in place, while the state is being written."""
    moving = {"nested": [{"weights": torch.zeros(2_000_000)}]}
    resume.save(1, moving)
    moving["nested"][0]["weights"].fill_(7)
    resume.wait()
    found = resume.load()
    assert found is not None
    assert not found["nested"][0]["weights"].any()


def test_a_write_that_fails_is_heard(resume: ResumeStore) -> None:
    resume.save(1, {"unwritable": lambda: None})
    with pytest.raises(Exception, match="pickle"):
        resume.wait()


def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    reader = ResumeStore(tmp_path / "run", "abc", writes=False)
    with reader.locked("vit"):
        reader.save(1, state(1))
    reader.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_and_the_first_one_named(resume: ResumeStore) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys; from pathlib import Path\n"
            "from cifarpipe.training.resume import ResumeStore\n"
            "with ResumeStore(Path(sys.argv[1]), 'other').locked('vit'):\n"
            "    print('held', flush=True); input()",
            str(resume.home),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    refused = pytest.raises(UserError, match=f"process {holder.pid} is training vit already")
    with refused, resume.locked("vit"):
        pass
    holder.kill()
    holder.wait()
    holder.communicate()
    with resume.locked("vit"):  # a process that is dead holds nothing
        save(resume, 1)
    assert (resume.home / LOCK).is_file()


def test_of_other_runs_states_the_newest_is_kept(resume: ResumeStore) -> None:
    save(resume, 1)
    for age, name in enumerate(("new", "old", "older")):
        (resume.home / name).mkdir()
        os.utime(resume.home / name, times=(10**9 - age, 10**9 - age))
    with resume.locked("vit"):
        assert {path.name for path in resume.home.iterdir()} == {"abc", "new", LOCK}
        assert epoch_of(resume.load()) == 1


def test_success_leaves_nothing_behind(resume: ResumeStore) -> None:
    with resume.locked("vit"):
        save(resume, 1, 2)
        resume.discard()
    assert not resume.folder.exists()


def test_fingerprint_depends_on_parameters_and_images() -> None:
    parts, arrays = {"lr": 0.1, "epochs": 3}, [np.arange(5), np.arange(3)]
    first = fingerprint(parts, arrays, [])
    assert first == fingerprint(dict(reversed(parts.items())), arrays, [])
    assert first != fingerprint(parts | {"lr": 0.2}, arrays, [])
    assert first != fingerprint(parts, [np.arange(5), np.arange(1, 4)], [])


def test_fingerprint_depends_on_the_listed_code_alone(tmp_path: Path) -> None:
    for name in ("training/loop.py", "models/vit.py", "report/page.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("a = 1")
    listed = [tmp_path / "models/vit.py", tmp_path / "training"]
    first = fingerprint({}, [], listed)
    (tmp_path / "report/page.py").write_text("a = 2")
    assert fingerprint({}, [], listed) == first
    (tmp_path / "training/loop.py").write_text("a = 2")
    second = fingerprint({}, [], listed)
    (tmp_path / "models/vit.py").write_text("a = 2")
    assert len({first, second, fingerprint({}, [], listed)}) == 3
