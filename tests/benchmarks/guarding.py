"""What a benchmark has begun ends with it, even if it is killed by SIGKILL. Linux only.

A ``Guard`` is a process of its own that is told, through a pipe, which sessions and folders there are. The
system closes the pipe as soon as the benchmark is gone, however that came; then the guard ends and removes
what is still there. It is in a session of its own, so that what is sent to the benchmark's does not reach it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

KILLING_TAKES = 30.0
"""Seconds, at most: a process that is killed first gives its memory on the GPU back."""


class Guard:
    """To be used in a ``with`` block. What was added and not dropped when the block ends is ended then."""

    def __init__(self) -> None:
        program = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).resolve()),
        ]  # without site it starts at once
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def add(self, what: int | Path) -> None:
        """Guard a session, by the number of its first process, or a folder, by its full path."""
        self._tell(f"+{what}")

    def drop(self, what: int | Path) -> None:
        """It has ended, or been removed: its number or name may be given to another."""
        self._tell(f"-{what}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        with suppress(OSError):  # whoever killed the guard did not mean the measurements
            print(line, file=self._process.stdin, flush=True)


def end_session(session: int) -> None:
    """Kill what is left of a session, orphans and other process groups too, and wait until it is gone."""
    last = time.monotonic() + KILLING_TAKES
    while (members := list(session_members(session))) and time.monotonic() < last:
        for process in members:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def session_members(session: int) -> Iterator[int]:
    """Its processes, without those that are dead, with all of their threads, and have not been waited for."""
    for path, fields in process_stats():
        state, threads = fields[0], int(fields[17])
        if int(fields[3]) == session and not (state == "Z" and threads <= 1):
            yield int(path.name)


def process_stats() -> Iterator[tuple[Path, list[str]]]:
    """Every process's folder in /proc, and the fields of its ``stat`` from its state on (man 5 proc)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := text_of(path).rpartition(")")[2].split():
            yield path.parent, fields


def text_of(path: Path) -> str:
    """Of a file of a process; nothing, if the process has ended meanwhile."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def main() -> None:
    """Be the guard: hear until the benchmark is gone, then end what was begun last first."""
    guarded: list[str] = []
    for line in sys.stdin:
        what = line[1:].rstrip("\n")
        if line.startswith("+"):
            guarded.append(what)
        elif what in guarded:
            guarded.remove(what)
    for what in reversed(guarded):
        if what.isdigit():
            end_session(int(what))
        else:
            shutil.rmtree(what, ignore_errors=True)


if __name__ == "__main__":
    main()
