"""SIGINT, SIGTERM and SIGHUP: what they do while a benchmark is prepared, and while it measures."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal ended the preparation. No Exception, since libraries catch those."""


class Stop:
    """Takes the signals of this process, except those that its caller let it ignore (``nohup``).

    The first raises ``Stopped``, or is only remembered while ``held``; later ones do nothing, so that what is
    being tidied up is tidied up.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        """The first signal that came."""
        self._held = False
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = signal.Signals(number)
            if not self._held:
                raise Stopped

    def came(self) -> bool:
        """Whether there was one."""
        return self.number is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only remember while the ``with`` block runs; one that came before, and was swallowed, ends here."""
        self._held = True
        try:
            if self.came():
                raise Stopped
            yield
        finally:
            self._held = False


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line (``stream`` None: to the standard output), and go on if nobody can read it any more."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:  # a terminal that was closed; what is left to be written must not fail at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
