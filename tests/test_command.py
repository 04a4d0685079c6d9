"""What a command says when something outside of it is at fault, and how it ends."""

import errno
from pathlib import Path

import pytest
import torch
import typer

from cifarpipe.config.command import USER_ERROR, new_app, out_of_memory, run_app
from cifarpipe.config.errors import UserError


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    app: typer.Typer = new_app()

    @app.command()
    def main() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["stage"])
        with pytest.raises(SystemExit) as exit_:
            run_app(app)
    assert exit_.value.code == USER_ERROR
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_users_error_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(UserError("lr is -1"), capsys) == "error: lr is -1\n"


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="gone") as missing:
        Path("gone.csv").read_text()
    said = ended(missing.value, capsys)
    assert said.startswith("error: gone.csv: No such file or directory.\n")
    assert "dvc repro" in said


def test_errors_of_the_disk_without_a_name_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "I/O error" in ended(OSError(errno.EIO, "I/O error"), capsys)
    assert "10 requested and 3 written" in ended(OSError("10 requested and 3 written"), capsys)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_says_what_needs_less(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ended(error, capsys)
    assert said.startswith("error: there is not enough memory on this device.\n")
    assert "batch_size" in said


def test_a_real_failure_to_allocate_is_known() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(failed.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError(), AssertionError()])
def test_defects_of_ours_keep_their_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = new_app()

    @app.command()
    def main() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["stage"])
    with pytest.raises(type(error)):
        run_app(app)
