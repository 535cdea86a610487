"""A SLURM of one node, this machine, as its own daemons run it; for tests. Needs root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import PATIENCE, soon

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
_CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def why_not() -> str | None:
    """Why there can be no SLURM here; None if there can."""
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing:
        return f"no {missing[0]}: apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "slurmd needs root"


class Slurm:
    """The daemons, and commands for them."""

    def __init__(self, folder: Path) -> None:
        """Start them, with all that they write in a folder."""
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ports = [_free_port() for _ in range(2)]
        host, cores = socket.gethostname().partition(".")[0], os.cpu_count()
        text = _CONFIGURATION.format(host=host, cores=cores, folder=folder, ports=ports)
        (folder / "slurm.conf").write_text(text)
        files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
        self._start("munged", "-F", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", *files)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        assert soon(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T")), self._logs()

    def call(self, *words: str) -> str:
        """What a command of SLURM prints; nothing while it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[str]:
        """The jobs and tasks of arrays that are queued or run."""
        return self.call("squeue", "-h", "-r", "-o", "%i").split()

    def close(self) -> None:
        """End all jobs, then the daemons."""
        self.call("scancel", "--signal=KILL", "--full", "--user=root")
        self.call("scancel", "--user=root")
        soon(lambda: not self.jobs())
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(PATIENCE)

    def _start(self, *words: str) -> None:
        with (self._folder / f"{words[0]}.out").open("wb") as log:
            daemon = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
        self._daemons.append(daemon)

    def _logs(self) -> str:
        return "\n".join(log.read_text() for log in self._folder.glob("*.out"))


@contextmanager
def one_node() -> Iterator[Slurm]:
    """SLURM as long as the ``with`` block runs."""
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    folder.chmod(0o755)
    slurm = Slurm(folder)
    try:
        yield slurm
    finally:
        slurm.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
