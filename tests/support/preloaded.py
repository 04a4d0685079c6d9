"""Run DVC, `cifarpipe` and stages in forks of one process that has imported the large packages.

In a small study these commands spend most of their time importing packages. With `preloading_path`
in front of PATH, `dvc …`, `cifarpipe …` and `python -m stages.…` ask a server for a fork of itself,
which then does what the command does. Every other `python …` is the real one.
"""

import array
import atexit
import fcntl
import importlib
import json
import os
import runpy
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from pathlib import Path

PACKAGES = (
    "einops", "matplotlib.pyplot", "pandas", "pydantic", "pytorch_grad_cam", "safetensors.torch",
    "scipy.stats", "torch._dynamo", "typer", "yaml",
    "dvc.cli.parser", "dvc.repo.experiments", "dvc.repo.reproduce", "dvc.scm", "dvc_data.index",
)  # fmt: skip
SOCKET = "server.sock"
# What the three commands are for the tests. It starts within 20 ms, since it imports nothing else.
# The first lines are a shell script, since a `#!` line allows no blanks in the path of Python.
CLIENT = """#!/bin/sh
'''exec' "{python}" -IS "$0" "$@"
' '''
import array, json, os, socket, sys

name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
command = [{programs!r} + "/" + name, *arguments]
is_stage = arguments[:1] == ["-m"] and arguments[1].startswith("stages.")
if (name != "python" or is_stage) and os.environ.get("OMP_NUM_THREADS") == {threads!r}:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect({path!r})
    except OSError:
        pass  # it has ended
    else:
        request = json.dumps([os.getcwd(), dict(os.environ), command]).encode()
        streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        server.sendmsg([len(request).to_bytes(8, "big")], streams)
        server.sendall(request)
        sys.exit(int.from_bytes(server.recv(1), "big"))
os.execv(command[0], command)
"""


@cache
def preloading_path() -> Path:
    """Return the folder of the clients; the first process of a test session starts the server."""
    session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    folder = Path(tempfile.gettempdir()) / f"preloaded-{session}"
    folder.mkdir(exist_ok=True)
    programs = folder / "bin"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if programs.exists():
            return programs
        command = [sys.executable, "-m", __name__, str(folder), str(session)]
        server = os.posix_spawn(sys.executable, command, os.environ)
        while not (folder / SOCKET).exists():
            assert os.waitpid(server, os.WNOHANG) == (0, 0), "the server has ended"
            time.sleep(0.02)
        client = CLIENT.format(
            python=sys.executable,
            programs=str(Path(sys.executable).parent),
            path=str(folder / SOCKET),
            threads=os.environ["OMP_NUM_THREADS"],  # fixed when torch is imported
        )
        programs.mkdir()
        for name in ("python", "dvc", "cifarpipe"):
            (programs / name).write_text(client)
            (programs / name).chmod(0o755)
    return programs


def serve(folder: Path, session: int) -> None:
    """Fork for every request, until the test session's process has ended."""
    for name in PACKAGES:
        importlib.import_module(name)
    server = socket.socket(socket.AF_UNIX)
    server.settimeout(1)
    server.bind(str(folder / "binding"))
    server.listen(64)
    (folder / "binding").rename(folder / SOCKET)
    while Path(f"/proc/{session}").exists():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:  # a child that waits for the command, so that the server need not
            server.close()
            connection.settimeout(None)
            answer(connection)
        connection.close()
        reap()
    shutil.rmtree(folder)


def reap() -> None:
    """Collect children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def answer(connection: socket.socket) -> None:
    """Run the requested command in a fork and send its exit code; does not return."""
    size = array.array("i").itemsize
    length, messages, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * size))
    streams = array.array("i")
    streams.frombytes(messages[0][2])
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(1 << 20)
    where, variables, command = json.loads(request)
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(where)
        os.environ.clear()
        os.environ.update(variables)
        os._exit(run(command))
    _, status = os.waitpid(child, 0)
    connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 255]))
    os._exit(0)


def run(command: list[str]) -> int:
    """Run `python -m MODULE …` or a Python script as their own process would; return its code."""
    program, *arguments = command
    code = 0
    try:
        if arguments[:1] == ["-m"]:
            sys.path[0] = str(Path.cwd())
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(program).parent)
            sys.argv = command
            runpy.run_path(program, run_name="__main__")
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # waits for threads, as the end of a process does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
