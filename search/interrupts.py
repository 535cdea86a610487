"""Ctrl-C and SIGTERM: what they do while a search is started, prepared, and under way."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
"""Of a command that Ctrl-C ended, as shells have it."""
AT_ONCE = 3.0
"""Seconds from the second interruption until something else ends what does not end by itself."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)


_endings: list[Callable[[], object]] = []
"""What is done before this process ends at once."""


def before_leaving(act: Callable[[], object]) -> bool:
    """Do this too where an interruption ends the process at once; false if it was to be done already."""
    if act in _endings:
        return False
    _endings.append(act)
    return True


class Interrupts:
    """Counts the interruptions of this process, and acts on them.

    At first each ends the process at once, which is for the time when the large libraries are imported: an
    exception would be swallowed in them, or turned into another. Then each raises ``KeyboardInterrupt``, and
    since that can be swallowed too, the count is looked at besides. While ``held`` they are only counted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._act: Callable[[], None] = _leave
        self.listen()

    def listen(self) -> None:
        """Take the signals; again, where a library has taken them."""
        for number in _STOPPING:
            signal.signal(number, self._interrupted)

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._act()

    def raise_from_now_on(self) -> None:
        """All is imported that takes long."""
        self._act = _raise

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if there was an interruption before."""
        if self.count:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only count while the ``with`` block runs; what came before ends the search here."""
        self._act = _nothing
        try:
            self.check()
            yield
        finally:
            self._act = _raise

    @contextmanager
    def ended_by_the_second(self, end: Callable[[], None]) -> Iterator[None]:
        """While the block runs, let another thread call ``end`` if the block is not over soon after the
        second interruption: what the main thread waits for may never come.

        Python's C code tells the thread of signals, so also while the main thread waits in that of a library.
        """
        signals, told = socket.socketpair()
        told.setblocking(False)
        over = threading.Event()
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_await_second, args=(signals, self.count, over, end), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            over.set()
            told.close()


def _await_second(signals: socket.socket, count: int, over: threading.Event, end: Callable[[], None]) -> None:
    with signals:
        while count < 2:
            if not (numbers := signals.recv(64)):
                return
            count += sum(number in _STOPPING for number in numbers)
    if not over.wait(AT_ONCE):
        end()


def _leave() -> None:
    with suppress(OSError):
        os.write(2, b"cifar-search: interrupted\n")
    leave_at_once()


def leave_at_once() -> NoReturn:
    """End this process, from whatever thread, with what was started beside it and nothing else."""
    for act in _endings:
        act()
    os._exit(EXIT_CODE)


def _raise() -> None:
    raise KeyboardInterrupt


def _nothing() -> None:
    pass
