"""Commands turn errors of the user and of the machine into a message and exit code 2."""

import errno
from pathlib import Path

import pytest
import torch
import typer

from cifarpipe.config.command import USER_ERROR, new_app, out_of_memory, run_app
from cifarpipe.config.errors import UserError


def message_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command that raises this error prints on stderr."""
    app: typer.Typer = new_app()

    @app.command()
    def main() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["stage"])
        with pytest.raises(SystemExit) as exit_:
            run_app(app)
    assert exit_.value.code == USER_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_user_error_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(UserError("lr is -1"), capsys) == "error: lr is -1\n"


def test_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="gone") as missing:
        Path("gone.csv").read_text()
    assert message_of(missing.value, capsys) == "error: gone.csv: No such file or directory.\n"


def test_file_that_a_stage_writes_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="gone") as missing:
        Path("artifacts/vit/gone.csv").read_text()
    message = message_of(missing.value, capsys)
    assert message.startswith("error: artifacts/vit/gone.csv: No such file or directory.\n")
    assert "`dvc repro` runs that first" in message


def test_disk_error_without_file_name_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "I/O error" in message_of(OSError(errno.EIO, "I/O error"), capsys)
    assert "10 requested and 3 written" in message_of(OSError("10 requested and 3 written"), capsys)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_gives_advice(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    message = message_of(error, capsys)
    assert message.startswith("error: out of memory on this device.\n")
    assert "batch_size" in message


def test_real_allocation_failure_is_recognised() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(failed.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError(), AssertionError()])
def test_bugs_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    app = new_app()

    @app.command()
    def main() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["stage"])
    with pytest.raises(type(error)):
        run_app(app)
