"""Workers as Ray actors, placed by what they need, wherever the cluster has it.

Ray starts a process again that died, alone or with its node; what is run again is decided by the study. An
actor is told to work anew by its command, which so sees every death: calls of actors are not retried.

The order, which holds the storage's URL, goes to the actor as an argument of a method: from process to
process, encrypted where Ray's TLS is on. An argument of its creation would be kept in Ray's head, and an
environment variable of the job be shown in its list of jobs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.data.request import DataRequest
from search.workers import Refusal, WorkerOrder, work
from studies.folders import SHARED
from studies.processes import process_name
from studies.record import Reason

_VARIABLES = (SHARED, "CIFAR_SEARCH_DATA")
"""What an actor takes over from the command's environment where its node does not say otherwise."""

_ANSWER = 10.0
"""Seconds within which a node answers, if need be from a process that has to be started."""


class _Actor:
    """What runs in a process that Ray has started."""

    def __init__(self) -> None:
        self._told = threading.Event()

    def name(self) -> tuple[str, str]:
        """The process's name, and its node's."""
        import ray

        return process_name(os.getpid()), ray.get_runtime_context().get_node_id()

    def stop(self) -> None:
        """Leave at the end of the epoch."""
        self._told.set()

    def work(self, order: WorkerOrder, folder: str, variables: Mapping[str, str]) -> str:
        """Work until there is nothing left to do; a line on why, if this worker cannot."""
        warnings.filterwarnings("ignore", module="optuna")
        for name, value in variables.items():
            os.environ.setdefault(name, value)
        with contextlib.suppress(OSError):  # relative paths are the command's, where its folder is here too
            os.chdir(folder)
        try:
            work(order, order.placement.device_of(0), self._told.is_set)
        except Refusal as refusal:
            return f"a worker on {socket.gethostname()} leaves: {refusal}"
        return ""


@dataclass
class _Member:
    """An actor, and what it was asked last: its name, which it can say once Ray has a place for it, then to
    work."""

    actor: Any
    answer: Any
    """The result to come."""
    name: str = ""
    """Empty until it has a place."""
    node: str = ""
    """Where it has its place, by Ray's name."""


class RayWorkers:
    """The worker actors of one command."""

    def __init__(
        self, order: WorkerOrder, gpus: float, over: Callable[[], bool], say: Callable[[str], None]
    ) -> None:
        """Start them.

        Args:
            order: what they do.
            gpus: of how much of a GPU each has the use, 0 to 1.
            over: whether the study is complete, so that workers without a place are needed no more.
            say: shows a line.
        """
        import ray
        import ray.util.scheduling_strategies

        self._ray = ray
        self._order = replace(order, data=_absolute(order.data), leader=process_name(os.getpid()))
        self._over = over
        self._say = say
        self._stopping = False
        self._kind = ray.remote(
            num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0, concurrency_groups={"control": 1}
        )(_Actor)
        self._idle = [self._kind.remote() for _ in range(order.placement.workers)]
        self._members: list[_Member] = []
        self.fill()

    def fill(self) -> None:
        """Let those work that Ray starts, as soon as it has a place for them."""
        for actor in self._idle:
            naming = actor.name.options(concurrency_group="control", max_task_retries=-1).remote()
            self._members.append(_Member(actor, naming))
        self._idle = []

    def __len__(self) -> int:
        return len(self._members)

    def names(self) -> list[str]:
        """The names of those that work, as far as they have a place."""
        return [member.name for member in self._members if member.name]

    def wait(self, timeout: float) -> None:
        """Wait until one has ended, or for ``timeout`` seconds; learn who has found a place."""
        self._ray.wait([member.answer for member in self._members], timeout=timeout)
        for member in self._without_place():
            if self._has_answered(member):
                self._set_to_work(member)
        if self._without_place() and (self._stopping or self._over()):
            self._dismiss(self._without_place())

    def collect_dead(self) -> dict[str, Reason]:
        """Forget the workers that have ended; the names of those that did not end well, and why."""
        gone = [member for member in self._members if member.name and self._has_answered(member)]
        self._members = [member for member in self._members if member not in gone]
        return {member.name: reason for member in gone if (reason := self._death(member))}

    def stop(self) -> None:
        """Ask all to put their trials back at the end of the epoch and leave."""
        self._stopping = True
        for member in self._members:
            member.actor.stop.options(concurrency_group="control").remote()

    def kill(self) -> None:
        """End all at once."""
        self._dismiss(self._members)

    def _has_answered(self, member: _Member) -> bool:
        return bool(self._ray.wait([member.answer], timeout=0)[0])

    def _set_to_work(self, member: _Member) -> None:
        """Give the order to a worker that has a place; one that never will have one is collected as dead."""
        try:
            member.name, member.node = self._ray.get(member.answer)
        except self._ray.exceptions.RayError:
            member.name = "(without a process)"
            return
        variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        member.answer = member.actor.work.remote(self._order, str(Path.cwd()), variables)

    def _without_place(self) -> list[_Member]:
        return [member for member in self._members if not member.name]

    def _dismiss(self, members: list[_Member]) -> None:
        for member in members:
            self._ray.kill(member.actor, no_restart=True)
        self._members = [member for member in self._members if member not in members]

    def _death(self, member: _Member) -> Reason | None:
        """Why a worker ended, and have Ray start its process again; None where it left by itself."""
        errors = self._ray.exceptions
        try:
            refusal = self._ray.get(member.answer)
        except errors.RayTaskError as error:
            self._say(f"a worker failed: {str(error.cause or error).strip().splitlines()[-1]}")
            # Ray takes an exception for an answer, and would kill a restarted actor in its next work
            self._ray.kill(member.actor, no_restart=True)
            self._idle.append(self._kind.remote())
            return "interrupted"
        except errors.ActorUnavailableError:
            self._idle.append(member.actor)
            return "killed" if self._is_alive(member.node) else "interrupted"
        except errors.RayActorError as error:
            self._say(f"a worker could not start: {str(error).strip().splitlines()[-1]}")
            self._idle.append(self._kind.remote())
            return "interrupted"
        if refusal:
            self._say(refusal)
        return None

    def _is_alive(self, node: str) -> bool:
        """Whether a node still answers, whose end would take its workers with it. Ray's own list of nodes
        learns of an end later."""
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        ask = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(lambda: None)
        try:
            self._ray.get(ask.remote(), timeout=_ANSWER)
        except self._ray.exceptions.RayError:
            return False
        return True


def _absolute(data: DataRequest) -> DataRequest:
    """The same request wherever it is read."""
    from search.data.sources import SOURCES

    dataset = data.dataset if data.dataset in SOURCES else str(data.folder)
    return replace(data, dataset=dataset, data_dir=data.data_dir and data.directory)
