"""Local worker processes: each claims slots of one study until none is left.

A worker needs no parent to do right: it stops at the end of an epoch when it is told to (SIGTERM), when its
parent is gone, or when the study's total is reached. What a killed worker leaves behind is repaired by
whoever claims next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from search.data.request import DataRequest
from studies.processes import process_name

POLL = 0.5
"""Seconds between two looks for a slot while other workers hold the last ones."""
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class WorkerOrder:
    """Everything that a worker needs to know, small enough to be sent to it."""

    storage_url: str
    study: str
    data: DataRequest
    device: str
    parallel: int
    sampler: str
    pruner: str
    keep: Path | None = None
    """Folder for the trained weights of the trials that are to be kept; None: none is."""


def work(order: WorkerOrder, stopping: Callable[[], bool]) -> None:
    """Claim and train slots until none is left or ``stopping()``.

    Raises:
        ValueError: if the study's data are not what this worker reads.
    """
    import torch

    from search.objective import TrialRun
    from search.prepare import StudyData
    from studies.heartbeat import Heartbeat
    from studies.opening import open_existing
    from studies.storage import open_storage

    torch.set_num_threads(1)
    storage = open_storage(order.storage_url, create=False, write=True)
    study = open_existing(storage, order.study, order.pruner)
    data = StudyData(order.data, study.data, torch.device(order.device))
    heartbeat = Heartbeat(storage)
    name = process_name(os.getpid())
    while not stopping():
        claim = study.claim(name, order.parallel, order.sampler)
        if claim is None:
            if study.is_complete():
                break
            time.sleep(POLL)
            continue
        heartbeat.watch(claim.trial_id)
        run = TrialRun(study, claim, data.divided(claim.split), order.keep)
        while run.advance():
            if stopping():
                run.interrupt()
                break
        heartbeat.watch(None)
    heartbeat.close()


def _main(order: WorkerOrder) -> None:
    """The life of a worker process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent gets them too, and tells us, or ends
        signal.signal(number, signal.SIG_IGN)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    warnings.filterwarnings("ignore", module="optuna")
    parent = multiprocessing.parent_process()
    work(order, lambda: bool(told) or not (parent and parent.is_alive()))


def _context() -> ForkServerContext:
    """Processes forked from a server that has imported torch once, so that a replacement starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["search.objective", "search.prepare"])
    return context


def prepare_workers() -> None:
    """Start the server that workers are forked from; it imports while the caller does something else.

    Signals to stop, which may reach all processes of a command, are left to the command: the server blocks
    them, and so does a worker until it is ready to end well.
    """
    _context()
    resource_tracker.ensure_running()  # before, since starting it unblocks the signals
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


class Workers:
    """The worker processes of one command."""

    def __init__(self, order: WorkerOrder, count: int) -> None:
        self._order = order
        self._context = _context()
        self._living: dict[str, BaseProcess] = {}
        for _ in range(count):
            self.start_one()

    def start_one(self) -> None:
        """Start one more worker."""
        process = self._context.Process(target=_main, args=(self._order,), daemon=True)
        process.start()
        assert process.pid is not None
        self._living[process_name(process.pid)] = process

    def __len__(self) -> int:
        return len(self._living)

    def names(self) -> list[str]:
        """The names of those that have not been collected."""
        return list(self._living)

    def wait(self, timeout: float) -> None:
        """Wait until one has ended, or for ``timeout`` seconds."""
        connection.wait([process.sentinel for process in self._living.values()], timeout)

    def collect_dead(self) -> list[str]:
        """Forget the workers that have ended; return the names of those that did not end well."""
        ended = {name: process for name, process in self._living.items() if not process.is_alive()}
        for name in ended:
            del self._living[name]
        return [name for name, process in ended.items() if process.exitcode != 0]

    def stop(self) -> None:
        """Ask all to put their trials back at the end of the epoch and leave."""
        for process in self._living.values():
            process.terminate()

    def kill(self) -> None:
        """End all at once."""
        for process in self._living.values():
            process.kill()
        for process in self._living.values():
            process.join()


def automatic_count(device: str) -> int:
    """How many workers "auto" means: one for each core on a CPU, one on a GPU."""
    return len(os.sched_getaffinity(0)) if device == "cpu" else 1
