"""Folders for the sockets of processes: a socket's path may have about a hundred characters, however long the
paths of other files may be, and whatever TMPDIR says."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util

LONGEST = 103
"""Bytes of a socket's path: 107 on Linux, 103 on macOS."""
OF_MULTIPROCESSING = "/pymp-xxxxxxxx/listener-xxxxxxxx"
"""How the paths of Python's own sockets go on."""
OF_RAY = "/ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""How the longest of Ray's goes on."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def keep_sockets_short() -> None:
    """Give the sockets that ``multiprocessing`` makes in this process a place that their length allows.

    Raises:
        ValueError: there is none.
    """
    usual = tempfile.tempdir
    tempfile.tempdir = folder_for(OF_MULTIPROCESSING)
    try:
        util.get_temp_dir()  # made at the first call, and used from then on
    finally:
        tempfile.tempdir = usual


def folder_for(rest: str) -> str:
    """The usual folder for temporary files, unless its path is too long for sockets whose paths go on like
    ``rest``: then another.

    Raises:
        ValueError: there is none.
    """
    room = LONGEST - len(rest)
    usual = _usual()
    found = [place for place in (usual, *SHORT) if len(os.fsencode(place)) <= room and _can_be_written(place)]
    if not found:
        raise ValueError(
            f"$TMPDIR: must name a folder that can be written and whose path has at most {room} bytes, "
            f"for the sockets of processes, but got {usual}, and {', '.join(SHORT)} cannot be written"
        )
    return found[0]


def _usual() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR", "")


def _can_be_written(place: str) -> bool:
    return os.access(place, os.W_OK | os.X_OK)
