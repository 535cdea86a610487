"""A Ray cluster of several nodes on this machine, for tests: each node a session of processes of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 120
"""Seconds to wait for a node on a busy machine."""


class Node:
    """A node: ``ray start``, and all that it starts."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str], cpus: int) -> None:
        """Return when it is ready."""
        self._log = folder / f"node-{time.monotonic_ns()}.log"
        program = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        program += [f"--num-cpus={cpus}", "--object-store-memory=100000000", *words]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                program, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def runs(self, pid: int) -> bool:
        """Whether a process is of this node."""
        with contextlib.suppress(ProcessLookupError):
            return os.getsid(pid) == self._process.pid
        return False

    def workers(self) -> list[int]:
        """The processes that run an actor."""
        return [pid for pid in _processes() if self.runs(pid) and _title(pid).startswith("ray::_Actor")]

    def kill(self) -> None:
        """Let the node vanish: SIGKILL to all its processes at once."""
        while pids := [pid for pid in _processes() if self.runs(pid)]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            time.sleep(0.1)


class RayCluster:
    """A cluster whose token only the holder of ``environment`` has."""

    def __init__(self, folder: Path, cpus: int) -> None:
        """Start the first node; each counts as having ``cpus`` cores."""
        self.folder = folder
        self._cpus = cpus
        self.token = secrets.token_hex(32)
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        self.nodes: list[Node] = []
        words = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
        self._start(words)
        started = self.nodes[0]._log.read_text()
        self.address = started.partition("--address='")[2].partition("'")[0]
        """HOST:PORT."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process is let in."""
        return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def add_node(self) -> Node:
        """Start one more node."""
        return self._start([f"--address={self.address}"])

    def kill(self) -> None:
        """End all nodes."""
        for node in reversed(self.nodes):
            node.kill()

    def _start(self, words: list[str]) -> Node:
        self.nodes.append(Node(self.folder, words, self.environment, self._cpus))
        return self.nodes[-1]


@contextmanager
def ray_cluster(cpus: int = 1) -> Iterator[RayCluster]:
    """A cluster of one node, to which others can be added, as long as the ``with`` block runs."""
    folder = Path(tempfile.mkdtemp(prefix="r"))  # short, since the paths of sockets may have 107 characters
    cluster = RayCluster(folder, cpus)
    try:
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _processes() -> list[int]:
    """All processes that have not ended."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if not _is_zombie(pid)]


def _title(pid: int) -> str:
    """The command line, or what the process calls itself."""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    return ""


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
