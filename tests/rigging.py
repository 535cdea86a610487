"""Real processes that fail at a chosen point, and whose times are short: for tests.

Run as a program it is ``cifar-search`` as $CIFAR_SEARCH_TEST_RIG says. Its workers are too, since a worker
process reads the main program of its parent first, and a Ray actor is sent the class that it is of.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

VARIABLE = "CIFAR_SEARCH_TEST_RIG"
SMALL = 4096
"""Bytes to which "cut" and "full" limit files: less than any checkpoint has."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where, and when: the ``call``-th time that a process calls a function.

    kill: SIGKILL. stop: SIGSTOP. hang: never go on. cut: end in the middle of the next file written. full:
    from this call on, files written within it cannot grow.
    """

    at: str
    """``module:name`` or ``module:class.name``."""
    act: Literal["kill", "stop", "hang", "cut", "full"]
    call: int = 1
    after: bool = False
    """Whether it happens when the function has returned, and not before it begins."""


@dataclass(frozen=True)
class Rig:
    """The times of a process in seconds, as its modules have them, and its faults."""

    every: float = 0.0
    """Between two checkpoints."""
    interval: float = 10.0
    """Between two signs of life."""
    grace: float = 120.0
    least: float = 60.0
    """That an epoch may always take."""
    vanished: int = 30
    """Until TCP gives up an end that does not acknowledge what it was sent."""
    idle: int = 40
    """Until a server ends a session that does nothing."""
    faults: tuple[Fault, ...] = ()

    def install(self) -> None:
        """Change this process."""
        for function, value in (
            ("search.checkpoints:Checkpoints.__init__", self.every),
            ("studies.heartbeat:Heartbeat.__init__", self.interval),
            ("studies.heartbeat:silent_trials", self.grace),
            ("search.watchdog:Watchdog.__init__", self.least),
        ):
            owner, name = _found(function)
            getattr(owner, name).__defaults__ = (value,)
        for name, seconds in (
            ("studies.connections:VANISHED", self.vanished),
            ("studies.connections:IDLE", self.idle),
            ("studies.locks:FROZEN", self.idle + 10),
        ):
            setattr(*_found(name), seconds)
        for fault in self.faults:
            _break(fault)

    def environment(self) -> dict[str, str]:
        """That of a program that is to be rigged so."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def of_environment(cls) -> Rig:
        told = json.loads(os.environ[VARIABLE])
        return cls(**{**told, "faults": tuple(Fault(**fault) for fault in told["faults"])})


def _found(place: str) -> tuple[Any, str]:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def _break(fault: Fault) -> None:
    owner, name = _found(fault.at)
    whole, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(whole)
    def broken(*arguments: Any, **named: Any) -> Any:
        call = next(calls)
        if fault.act == "full" and call >= fault.call:
            with _full():
                return whole(*arguments, **named)
        if call == fault.call and not fault.after:
            _ACTS[fault.act]()
        result = whole(*arguments, **named)
        if call == fault.call and fault.after:
            _ACTS[fault.act]()
        return result

    setattr(owner, name, broken)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hang() -> None:
    while True:
        time.sleep(3600)


def _cut() -> None:
    """From now on the kernel ends this process where a file grows beyond the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


_ACTS: dict[str, Callable[[], None]] = {"kill": _kill, "stop": _stop, "hang": _hang, "cut": _cut}


@contextmanager
def _full() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rigged_worker(rig: Rig, *arguments: Any) -> None:
    """The life of a worker process, rigged; the arguments are those of ``search.workers``."""
    from search import workers

    rig.install()
    workers._main(*arguments)


def rig_actors(rig: Rig) -> None:
    """Let the Ray actors that this process starts be rigged."""
    from search.cluster import ray_workers

    class _Actor(ray_workers._Actor):
        def work(self, *arguments: Any) -> str:
            rig.install()
            return super().work(*arguments)

    ray_workers._Actor = _Actor  # type: ignore[misc]


if __name__ in ("__main__", "__mp_main__"):
    Rig.of_environment().install()
if __name__ == "__main__":
    from search.cli import main

    rig_actors(Rig.of_environment())
    sys.exit(main())
