"""Run the stages of tests in forks of one process that has already imported the large packages.

A stage of a small study spends most of its time importing packages. `python -m stages.…`, started
with `preloading_path` in front of PATH, asks a server for a fork of itself, which then does what
`python -m` does. Everything else that is started as `python` is the real one.
"""

import array
import fcntl
import importlib
import json
import os
import runpy
import shutil
import socket
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path

PACKAGES = (
    "einops", "matplotlib.pyplot", "pandas", "pydantic", "pytorch_grad_cam", "safetensors.torch",
    "scipy.stats", "torch._dynamo", "typer", "yaml",
)  # fmt: skip
SOCKET = "stages.sock"
# What `python` is for the tests' commands. It starts within 20 ms, since it imports nothing else.
CLIENT = """#!{python} -IS
import array, json, os, socket, sys

command = sys.argv[1:]
is_stage = command[:1] == ["-m"] and command[1].startswith("stages.")
if is_stage and os.environ.get("OMP_NUM_THREADS") == {threads!r}:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect({path!r})
    except OSError:
        pass  # it has ended
    else:
        request = json.dumps([os.getcwd(), dict(os.environ), command[1:]]).encode()
        streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        server.sendmsg([len(request).to_bytes(8, "big")], streams)
        server.sendall(request)
        sys.exit(int.from_bytes(server.recv(1), "big"))
os.execv({python!r}, [{python!r}, *command])
"""


@cache
def preloading_path() -> Path:
    """Return the folder of the client; the first process of a test session starts the server."""
    session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    folder = Path(tempfile.gettempdir()) / f"stages-{session}"
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
            path=str(folder / SOCKET),
            threads=os.environ["OMP_NUM_THREADS"],  # fixed when torch is imported
        )
        programs.mkdir()
        (programs / "python").write_text(client)
        (programs / "python").chmod(0o755)
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
        if os.fork() == 0:  # a child that waits for the stage, so that the server need not
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
    """Run the requested stage in a fork and send its exit code; does not return."""
    size = array.array("i").itemsize
    length, messages, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * size))
    streams = array.array("i")
    streams.frombytes(messages[0][2])
    request = b""
    while len(request) < int.from_bytes(length, "big"):
        request += connection.recv(1 << 20)
    where, variables, (module, *arguments) = json.loads(request)
    stage = os.fork()
    if stage == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(where)
        os.environ.clear()
        os.environ.update(variables)
        sys.path[0] = where
        sys.argv = [module, *arguments]
        os._exit(run(module))
    _, status = os.waitpid(stage, 0)
    connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 255]))
    os._exit(0)


def run(module: str) -> int:
    """Run a module as `python -m` does, and return its exit code."""
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
