"""Processes by names that never come twice, so that the trials of a dead one are known at once.

A name is ``HOST:PLACE:PID:START``. PLACE stands for this start of the machine and the container on it, so
that no process elsewhere is taken for one of here; START is the process's start time, since a PID comes back.
Without ``/proc`` no process is ever known to be dead; then its silence has to tell.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

_PROC = Path("/proc")
_IS_PID = re.compile("[0-9]{1,9}")


def process_name(pid: int) -> str:
    """The name of a process of this machine."""
    return f"{_here()}:{pid}:{_status(pid)[1]}"


def is_dead(name: str) -> bool:
    """Whether the process ran here and is certainly gone; false for one that ran elsewhere."""
    here, _, process = name.partition(f"{_here()}:")
    pid, _, start = process.partition(":")
    if here or not start or not _IS_PID.fullmatch(pid):
        return False
    state, start_now = _status(int(pid))
    if not state:
        return not _exists(int(pid))
    return state == "Z" or start_now != start


def short_name(name: str) -> str:
    """What people need of a process's name: host and PID."""
    host, _, rest = name.partition(":")
    return f"{host}:{rest.split(':')[1]}" if rest.count(":") == 2 else name


@functools.cache
def _here() -> str:
    try:
        booted = (_PROC / "sys/kernel/random/boot_id").read_text()
        place = hashlib.sha256(f"{booted} {(_PROC / 'self/ns/pid').stat().st_ino}".encode()).hexdigest()[:12]
    except OSError:
        place = ""
    return f"{socket.gethostname()}:{place}"


def _status(pid: int) -> tuple[str, str]:
    """State ("Z": ended, but not yet collected) and start time; empty where they cannot be told."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _exists(pid: int) -> bool:
    """Whether there is such a process, also where ``/proc`` hides those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
