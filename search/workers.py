"""Local worker processes: each claims slots of one study until none is left.

A worker needs no parent to do right: it stops at the end of an epoch when it is told to (SIGTERM), when its
parent is gone, or when the study's total is reached. What a killed worker leaves behind is repaired by
whoever claims next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from search.data.request import DataRequest
from search.fork_server import end_with_this_process
from search.memory import keep_freed_memory
from search.output import open_streams
from search.placement import Placement
from search.sockets import keep_sockets_short
from studies.processes import process_name
from studies.record import Drawing, Reason
from studies.urls import GoneError, StorageError

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class WorkerOrder:
    """Everything that a worker needs to know, small enough to be sent to it."""

    storage_url: str
    study: str
    data: DataRequest
    placement: Placement
    sampler: str
    pruner: str
    keep: Path | None = None
    """Folder for the trained weights of the trials that are to be kept; None: none is."""
    leader: str | None = None
    """The process that sees the worker end, by its name; None: nobody does."""

    @property
    def drawing(self) -> Drawing:
        """How slots are drawn."""
        return Drawing(sampler=self.sampler, parallel=self.placement.parallel, ahead=self.placement.ahead)


class Refusal(ValueError):
    """A worker cannot help with the study, now or later: one line on why."""


def work(order: WorkerOrder, device_name: str, stopping: Callable[[], bool]) -> None:
    """Claim and train slots until none is left, ``stopping()``, or the study is deleted.

    Raises:
        Refusal: if there is no such study, its data are not what this worker reads, or it cannot keep
            checkpoints.
    """
    import torch

    from search.checkpoints import Checkpoints
    from search.driver import Driver
    from search.objective import Kept
    from search.prepare import StudyData
    from search.training.lanes import make_lane
    from studies.artifacts import ArtifactStore, artifact_folder
    from studies.folders import CHECKPOINTS, check_folder, checkpoint_folder
    from studies.opening import open_existing
    from studies.storage import open_storage

    torch.set_num_threads(1)
    device = torch.device(device_name)
    storage = open_storage(order.storage_url, create=False, write=True, wait=True)
    try:
        study = open_existing(storage, order.study, order.pruner)
        check_folder(order.storage_url, CHECKPOINTS)
        data = StudyData(order.data, study.data, device)
    except ValueError as error:
        raise Refusal(str(error)) from None
    lanes = [make_lane(device, order.placement.graphs) for _ in range(order.placement.per_gpu)]
    kept = Kept(
        weights=order.keep,
        checkpoints=Checkpoints(checkpoint_folder(order.storage_url, study)),
        artifacts=ArtifactStore(artifact_folder(order.storage_url)),
    )
    driver = Driver(study, data, lanes, process_name(os.getpid()), order.drawing, kept, order.leader)
    with suppress(GoneError):  # whoever leads the study finds out too, and tells
        driver.drive(stopping)


def _main(order: WorkerOrder, device: str) -> None:
    """The life of a worker process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent gets them too, and tells us, or ends
        signal.signal(number, signal.SIG_IGN)
    open_streams()
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    warnings.filterwarnings("ignore", module="optuna")
    parent = multiprocessing.parent_process()
    try:
        work(order, device, lambda: bool(told) or not (parent and parent.is_alive()))
    except (Refusal, StorageError) as error:
        sys.exit(f"cifar-search: a worker ends: {error}")


def _context() -> ForkServerContext:
    """Processes forked from a server that has imported torch once, so that a replacement starts at once."""
    context = multiprocessing.get_context("forkserver")
    # the last is what the first optimizer of a process imports: as long as all the rest takes
    context.set_forkserver_preload(["search.driver", "search.prepare", "torch._dynamo"])
    return context


def prepare_workers() -> None:
    """Start the server that workers are forked from; it imports while the caller does something else.

    Signals to stop, which may reach all processes of a command, are left to the command: the server blocks
    them, and so does a worker until it is ready to end well. The server ends with the command.

    Raises:
        ValueError: there is no place for the server's socket.
    """
    keep_freed_memory()
    keep_sockets_short()
    end_with_this_process()
    _context()
    resource_tracker.ensure_running()  # before, since starting it unblocks the signals
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


class Workers:
    """The worker processes of one command."""

    def __init__(self, order: WorkerOrder) -> None:
        self._order = replace(order, leader=process_name(os.getpid()))
        self._context = _context()
        self._living: dict[str, tuple[int, BaseProcess]] = {}
        self.fill()

    def fill(self) -> None:
        """Start as many as are missing, each with the number, and so the device, of one that is gone."""
        missing = set(range(self._order.placement.workers)) - {number for number, _ in self._living.values()}
        for number in sorted(missing):
            device = self._order.placement.device_of(number)
            process = self._context.Process(target=_main, args=(self._order, device), daemon=True)
            process.start()
            assert process.pid is not None
            self._living[process_name(process.pid)] = number, process

    def __len__(self) -> int:
        return len(self._living)

    def names(self) -> list[str]:
        """The names of those that have not been collected."""
        return list(self._living)

    def wait(self, timeout: float) -> None:
        """Wait until one has ended, or for ``timeout`` seconds."""
        connection.wait([process.sentinel for process in self._processes()], timeout)

    def collect_dead(self) -> dict[str, Reason]:
        """Forget the workers that have ended; the names of those that did not end well, and why."""
        ended = {name: process for name, (_, process) in self._living.items() if not process.is_alive()}
        for name in ended:
            del self._living[name]
        codes = {name: process.exitcode or 0 for name, process in ended.items()}
        return {name: "killed" if code < 0 else "interrupted" for name, code in codes.items() if code}

    def stop(self) -> None:
        """Ask all to put their trials back at the end of the epoch and leave."""
        for process in self._processes():
            process.terminate()

    def kill(self) -> None:
        """End all at once."""
        for process in self._processes():
            process.kill()
        for process in self._processes():
            process.join()

    def _processes(self) -> list[BaseProcess]:
        return [process for _, process in self._living.values()]
