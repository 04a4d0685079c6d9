"""`cifarpipe slurm` on a real Slurm, with this machine as controller and node."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cifarpipe.config.machine import cores
from tests.support.study import copy_of, experiments, run, shared_study, succeed

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={home}
SlurmdSpoolDir={home}/node
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start Slurm with this machine as controller and node."""
    with TemporaryDirectory(prefix="slurm") as short:  # paths of sockets must be short
        home = Path(short)
        home.chmod(0o755)
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        file = home / "slurm.conf"
        values = {"host": socket.gethostname(), "home": home, "ports": ports, "cores": cores()}
        file.write_text(CONFIGURATION.format(**values))
        monkeypatch.setenv("SLURM_CONF", str(file))
        key = home / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        parts = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid",
                 "log-file": "munge.log", "seed-file": "munge.seed"}  # fmt: skip
        options = [f"--{option}={home / name}" for option, name in parts.items()]
        daemons = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in (
                ["munged", "--force", "--foreground", *options],
                ["slurmctld", "-D", "-f", str(file)],
                ["slurmd", "-D", "-f", str(file)],
            )
        ]
        wait_until(lambda: "idle" in run(home, "sinfo").stdout)
        yield
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def wait_until(reached: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
    reason="needs root, and the packages slurm-wlm and munge",
)
@pytest.mark.usefixtures("cluster")
def test_real_slurm_runs_an_array(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """Six experiments, two at a time: one is refused, one killed. As docs/cluster.md says."""
    study = copy_of(shared_study(tmp_path_factory), tmp_path / "study")
    rates = ("0.005", "0.001 -S data.source=folder -S data.folder=none", "0.02", "0.004", "0.006",
             "0.007")  # fmt: skip
    (study / "rates.txt").write_text("".join(f"-S lr={rate}\n" for rate in rates))
    done = run(study, "cifarpipe", "slurm", "--settings", "rates.txt", "--", "--cpus-per-task=1")
    assert done.returncode == 0, done.stderr
    assert "pending" in run(study, "cifarpipe", "slurm").stdout
    clones = "pgrep -f 'cifarpipe.cli.slurm.task .* 3$'"
    wait_until(lambda: run(study, "bash", "-c", clones).returncode == 0)
    time.sleep(5)
    succeed(study, "bash", "-c", "pkill -KILL -f 'cifarpipe.cli.slurm.task .* 3$'")
    wait_until(lambda: not run(study, "squeue", "--noheader").stdout.strip())
    found = set(experiments(study))
    assert found == {f"rates-{number}" for number in (1, 3, 5, 6)}
    done = run(study, "cifarpipe", "slurm")
    assert done.returncode == 1
    states = [line.split(": ")[1].split(",")[0] for line in done.stdout.splitlines()]
    assert states == ["finished", "failed", "finished", "killed", "finished", "finished"]
    table = succeed(study, "cifarpipe", "sweep", "--model", "vit")
    assert all(f"| {rate} |" in table for rate in ("0.005", "0.01", "0.02", "0.007"))
    succeed(study, "dvc", "exp", "run", "--queue", "--name", "half", "-S", "lr=0.002")
    succeed(study, "cifarpipe", "slurm", "--queue")
    wait_until(lambda: not run(study, "squeue", "--noheader").stdout.strip())
    assert "half" in experiments(study)
