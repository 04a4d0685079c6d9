"""The state of a run on disk: complete or ignored, the newest one used, one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarpipe.config.errors import UserError
from cifarpipe.training import resume as module
from cifarpipe.training.resume import HEADER, LOCK, SLOTS, ResumeStore, fingerprint, read_state


@pytest.fixture
def resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResumeStore:
    """Return a store that saves after each epoch."""
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    store = ResumeStore(tmp_path / "vit", "abc")
    store.folder.mkdir(parents=True)
    return store


def state(epoch: int) -> dict[str, object]:
    return {"weights": torch.full((1000,), float(epoch)), "rows": [{"epoch": epoch}], "none": None}


def save(resume: ResumeStore, *epochs: int) -> None:
    for epoch in epochs:
        resume.save(epoch, lambda epoch=epoch: state(epoch))
    resume.wait()


def epoch_of(found: dict[str, object] | None) -> object:
    assert found is not None
    weights = found["weights"]
    assert isinstance(weights, torch.Tensor)
    return int(weights[0])


def test_missing_state_loads_as_none(tmp_path: Path) -> None:
    assert ResumeStore(tmp_path / "nowhere", "abc").load() is None


def test_newest_state_is_loaded(resume: ResumeStore) -> None:
    save(resume, 1)
    assert epoch_of(resume.load()) == 1
    save(resume, 2, 3)
    found = resume.load()
    assert epoch_of(found) == 3
    assert found is not None
    assert found["rows"] == [{"epoch": 3}]
    assert found["none"] is None


@pytest.mark.parametrize("kept", [0, 3, HEADER.size - 1, HEADER.size, 500, -1])
def test_truncated_file_falls_back_to_previous_state(resume: ResumeStore, kept: int) -> None:
    save(resume, 1, 2)
    newest = resume.folder / SLOTS[1]
    newest.write_bytes(newest.read_bytes()[:kept])
    assert epoch_of(resume.load()) == 1


@pytest.mark.parametrize("place", [0, 9, 13, HEADER.size + 1, -1])
def test_flipped_bit_falls_back_to_previous_state(resume: ResumeStore, place: int) -> None:
    save(resume, 1, 2)
    newest = resume.folder / SLOTS[1]
    content = bytearray(newest.read_bytes())
    content[place] ^= 4
    newest.write_bytes(content)
    assert epoch_of(resume.load()) == 1


def test_resumed_run_keeps_its_last_state_while_writing(resume: ResumeStore) -> None:
    """It writes the other file first, whichever that is."""
    save(resume, 1, 2, 3)
    again = ResumeStore(resume.home, "abc")
    assert epoch_of(again.load()) == 3
    save(again, 6)
    files = [read_state(resume.folder / slot) for slot in SLOTS]
    assert sorted(found[0] for found in files if found) == [3, 6]


def test_states_are_saved_at_intervals(
    resume: ResumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "INTERVAL", 30.0)
    for epoch, now in enumerate((1000.0, 1029.0, 1031.0, 1060.0, 1061.5), start=1):  # noqa: B007
        save(resume, epoch)
        assert epoch_of(resume.load()) == (1, 1, 3, 3, 5)[epoch - 1]


def interrupt(resume: ResumeStore, *, saved: int = 0) -> None:
    with resume.locked("vit"):
        resume.load()
        if saved:
            save(resume, saved)
        raise KeyboardInterrupt


def test_interrupted_run_says_where_it_resumes(
    resume: ResumeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ResumeStore(resume.home, "abc")
    for store, saved, then in (
        (resume, 0, "starts it again"),
        (resume, 4, "resumes after epoch 4"),
        (again, 0, "resumes after epoch 4"),
    ):
        with pytest.raises(KeyboardInterrupt):
            interrupt(store, saved=saved)
        assert capsys.readouterr().err == f"vit: interrupted; in this folder, `dvc repro` {then}\n"


def test_two_damaged_files_load_as_none(resume: ResumeStore) -> None:
    save(resume, 1, 2)
    for slot in SLOTS:
        (resume.folder / slot).write_bytes(b"")
    assert resume.load() is None


def test_saved_state_ignores_later_changes(resume: ResumeStore) -> None:
    """Training changes tensors in place while the state is being written."""
    changing = {"nested": [{"weights": torch.zeros(2_000_000)}]}
    resume.save(1, lambda: changing)
    changing["nested"][0]["weights"].fill_(7)
    resume.wait()
    found = resume.load()
    assert found is not None
    assert not found["nested"][0]["weights"].any()


def test_failed_write_raises_on_wait(resume: ResumeStore) -> None:
    class UnwritableError(Exception):
        pass

    class Unwritable:
        def __reduce__(self) -> str:
            raise UnwritableError

    resume.save(1, lambda: {"unwritable": Unwritable()})
    with pytest.raises(UnwritableError):
        resume.wait()


def test_reader_writes_nothing(tmp_path: Path) -> None:
    reader = ResumeStore(tmp_path / "run", "abc", writes=False)
    with reader.locked("vit"):
        reader.save(1, lambda: state(1))
    reader.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_second_process_is_refused_naming_the_first(resume: ResumeStore) -> None:
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
    with resume.locked("vit"):  # the lock of a dead process is released
        save(resume, 1)
    assert (resume.home / LOCK).is_file()


def test_newest_state_of_other_runs_is_kept(resume: ResumeStore) -> None:
    save(resume, 1)
    for age, name in enumerate(("new", "old", "older")):
        (resume.home / name).mkdir()
        (resume.home / name / SLOTS[0]).touch()
        os.utime(resume.home / name, times=(10**9 - age, 10**9 - age))
    with resume.locked("vit"):
        assert {path.name for path in resume.home.iterdir()} == {"abc", "new", LOCK}
        assert epoch_of(resume.load()) == 1


def test_runs_that_ended_before_their_first_save_displace_no_state(resume: ResumeStore) -> None:
    """Such as two starts with a mistyped learning rate."""
    with resume.locked("vit"):
        save(resume, 7)
    for name in ("mistyped", "mistyped again"):
        with pytest.raises(UserError, match="stop"), ResumeStore(resume.home, name).locked("vit"):
            raise UserError("stop")
    (resume.home / "killed").mkdir()
    (resume.home / ".DS_Store").touch()  # of a file browser
    with resume.locked("vit"):
        assert epoch_of(resume.load()) == 7
        assert {path.name for path in resume.home.iterdir() if path.is_dir()} == {"abc"}


def test_discard_removes_all_files(resume: ResumeStore) -> None:
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


def test_fingerprint_depends_only_on_listed_code(tmp_path: Path) -> None:
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
