"""What ``multiprocessing`` starts beside a command's workers, ended before the command has ended.

The fork server and the resource tracker end by themselves when they notice that the command is gone; a server
that still imports does so only seconds later.

Uses of Python's internals, held by a test of commands that are started as they are by users:

- ``multiprocessing.forkserver._forkserver._forkserver_pid``;
- ``multiprocessing.resource_tracker._resource_tracker``: ``_pid``, ``_stop()``;
- ``multiprocessing.util.Finalize``: one of a negative priority is called at the end of the process, after its
  children have been waited for.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util

from search.interrupts import before_leaving

_AFTER_WORKERS = -50
"""Before the folder of the server's socket is deleted, at -100."""


def end_with_this_process() -> None:
    """End both when this process ends, in whatever way but being killed; again has no effect."""
    if before_leaving(_kill):
        util.Finalize(None, _end, exitpriority=_AFTER_WORKERS)


def _end() -> None:
    _kill_one(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # waits for it


def _kill() -> None:
    """End both at once, in the middle of anything."""
    _kill_one(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    _kill_one(resource_tracker._resource_tracker._pid)  # type: ignore[attr-defined]


def _kill_one(pid: int | None) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
