"""Ctrl-C and SIGTERM: what they do while a search is started, prepared, and under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
"""Of a command that Ctrl-C ended, as shells have it."""


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
        for number in (signal.SIGINT, signal.SIGTERM):
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


def _leave() -> None:
    os.write(2, b"cifar-search: interrupted\n")
    os._exit(EXIT_CODE)


def _raise() -> None:
    raise KeyboardInterrupt


def _nothing() -> None:
    pass
