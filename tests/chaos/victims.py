"""A search whose processes can be found and ended: ``cifar-search run`` with its times made short."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import rigging
import warm
from ray_cluster import RayCluster
from rigging import Rig

STUDY = "chaos"
HOLDER = """
import sys
from studies.storage import open_storage, study_lock
storage = open_storage(sys.argv[1], create=False, write=True)
with study_lock(storage, storage.get_study_id_from_name(sys.argv[2])):
    print("holds", flush=True)
    sys.stdin.read()
"""
"""A process that takes the study's lock, and keeps it until its input ends."""
EPOCHS = 20
RAY_EPOCHS = 60
"""Of a training by an actor, which takes longer to be started anew than a fork does."""
SPACE = """
question: Does a search lose anything?
base:
  augmentation: {shift: 1}
  model: {name: vgg, widths: [16, 32], convolutions: 1, head: 0, dropout: 0.1}
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9, nesterov: true}
  schedule: {name: cosine}
  training: {batch_size: 32, ema: 0.9}
parameters:
  optimizer.lr: {float: [1e-3, 0.2], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.5], role: scientific}
"""
RIG = Rig(every=0.3, interval=0.5, grace=4.0, vanished=2, idle=3)
"""A thirtieth of the times that the program has between two checkpoints, and as the grace period; a tenth of
those after which connections and sessions are given up."""
PATIENCE = 60.0
"""Seconds that processes have to leave when their study is complete."""


class Search:
    """One study of a folder, and the command that leads it: started, ended, and started again."""

    epochs = EPOCHS

    def __init__(self, folder: Path, url: str, slots: int, workers: int, seed: int, train_size: int) -> None:
        """Get ready; nothing is started."""
        self.slots = slots
        self._folder = folder
        (folder / "space.yaml").write_text(SPACE)
        self._words = [
            *("run", "--space", "./space.yaml", "--study", STUDY, "--storage", url, "--dataset", "digits"),
            *("--workers", str(workers), "--train-size", str(train_size)),
            *("--seed", str(seed), "--pruner", "none", "--epochs", str(self.epochs)),
        ]
        self._environment = RIG.environment() | {
            "CIFAR_SEARCH_DATA": str(folder / "data"),
            "CIFAR_SEARCH_SHARED": str(folder / "shared"),
            "OMP_NUM_THREADS": "1",
        }
        self._commands: list[warm.Process] = []
        self._url = url
        self._holders: list[subprocess.Popen[bytes]] = []

    @property
    def coordinator(self) -> warm.Process:
        """The command that was started last."""
        return self._commands[-1]

    def said(self) -> str:
        """By the command that was started last."""
        return self._log(len(self._commands)).read_text(errors="replace")

    def said_by_all(self) -> str:
        return "".join(self._log(n + 1).read_text(errors="replace") for n in range(len(self._commands)))

    def _log(self, number: int) -> Path:
        return self._folder / f"{number}.log"

    def start(self) -> None:
        """Start the command, or another one."""
        with self._log(len(self._commands) + 1).open("wb") as log:
            self._commands.append(
                warm.Process(
                    [*self._words, "--trials", str(self.slots)],
                    script=rigging.__file__,
                    cwd=self._folder,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )
            )

    def freeze_lock_holder(self, wait: Callable[[], object], until: float) -> int | None:
        """Stop a process that has the study's lock, and leaves as soon as it goes on; its PID.

        Args:
            wait: called again and again while the lock is not free.
            until: when it is given up (by ``time.monotonic``): then, where the database is away, and where
                there is no study yet, the answer is None.
        """
        words = [sys.executable, "-c", HOLDER, self._url, STUDY]
        holder = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._holders.append(holder)
        assert holder.stdin is not None
        assert holder.stdout is not None
        while not select.select([holder.stdout], [], [], 0.1)[0]:
            wait()
            if time.monotonic() > until:
                holder.kill()
                return None
        if not holder.stdout.readline():
            return None
        holder.send_signal(signal.SIGSTOP)
        holder.stdin.close()
        return holder.pid

    def workers(self) -> list[int]:
        """The living worker processes of the command."""
        return [pid for pid, parent in self._session(self.coordinator.pid) if is_fork_server(parent)]

    def left(self) -> list[int]:
        """The living processes of all commands that have been started, and their workers."""
        return [pid for command in self._commands for pid, _ in self._session(command.pid)]

    def kill(self) -> None:
        """Kill whatever still runs."""
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for holder in self._holders:
            holder.kill()

    def end(self) -> None:
        """Kill whatever still runs, and wait until it is gone."""
        self.kill()
        for command in self._commands:
            command.wait()
        for holder in self._holders:
            with holder:  # waits for it, and closes what leads to it
                pass

    @staticmethod
    def _session(number: int) -> Iterator[tuple[int, int]]:
        """Living processes with their parents."""
        for pid, (state, parent, session) in processes().items():
            if session == number and state not in "ZX":
                yield pid, parent


class RaySearch(Search):
    """One whose workers are actors on a cluster."""

    epochs = RAY_EPOCHS

    def __init__(self, cluster: RayCluster, *arguments: Any) -> None:
        """Get ready; nothing is started. The other arguments are those of ``Search``."""
        super().__init__(*arguments)
        self._cluster = cluster
        self._words += ["--ray", cluster.address]
        self._environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}

    def workers(self) -> list[int]:
        """The living actors."""
        return [pid for node in self._cluster.nodes for pid in node.workers()]

    def left(self) -> list[int]:
        """The living processes of all commands that have been started, and actors."""
        return super().left() + self.workers()


def processes() -> Mapping[int, tuple[str, int, int]]:
    """State, parent and session of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            found[int(path.parent.name)] = fields[0], int(fields[1]), int(fields[3])
    return found


def is_fork_server(pid: int) -> bool:
    """Whether the process is the one that workers are forked from, or one of them."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == warm.FORK_SERVER
    return False
