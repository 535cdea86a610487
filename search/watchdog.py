"""A thread that notices when an epoch hangs: a driver, a file system or a library that never returns.

The thread that trains cannot be ended from outside, so the process is: its trial is recorded first, and its
place is taken by a new worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FACTOR = 10.0
"""How many times the usual an epoch may take."""
LEAST = 60.0
"""Seconds that an epoch may always take."""


class Watchdog:
    """Watches one piece of work at a time."""

    def __init__(self, give_up: Callable[[str], None], least: float = LEAST) -> None:
        """``give_up`` is called with the reason, by the thread that watches; it should not return."""
        self._give_up = give_up
        self._least = least
        self._due: tuple[float, str] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self._thread.start()

    @contextmanager
    def watching(self, usual: float | None) -> Iterator[None]:
        """Expect that the ``with`` block takes ``usual`` seconds; None: nobody knows, any time is right."""
        if usual is not None:
            limit = max(self._least, FACTOR * usual)
            why = f"an epoch took more than {limit:.3g} s, where {usual:.3g} s are usual: its worker hung"
            self._due = time.monotonic() + limit, why
        try:
            yield
        finally:
            self._due = None

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._least / 4)):
            due = self._due
            if due and time.monotonic() > due[0]:
                self._give_up(due[1])
                return
