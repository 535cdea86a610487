"""The workers of one command, watched until its study is complete, its time is up, or it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from rich.console import RenderableType

from search.interrupts import AT_ONCE, EXIT_CODE, Interrupts, leave_at_once
from search.workers import WorkerOrder, Workers
from studies.base import Study
from studies.folders import checkpoint_folder
from studies.progress import Progress, ProgressMeter
from studies.record import Reason
from studies.urls import GoneError

POLL = 0.5
"""Seconds between two looks at the study."""
HOPELESS = 3
"""Workers that may die in a row without a slot being closed, for each worker there is."""
TOGETHER = 0.2
"""Seconds within which workers die together: then it was not what one of them trained."""
INTERRUPTED, TOLD = "interrupted", "told to stop"
"""Why a session stops, in words."""
REFUSED = 2
"""Exit code where all workers left a study that is not complete, each having said why."""


class Screen(Protocol):
    """Where a command shows itself."""

    def say(self, line: str) -> None: ...

    def decoding(self, done: int, total: int) -> None: ...

    def update(self, progress: Progress, stopping: bool) -> None: ...

    def finish(self, view: RenderableType, commands: list[str]) -> None: ...

    def close(self) -> None: ...


class Crew(Protocol):
    """The workers of one command, wherever they are."""

    def __len__(self) -> int:
        """How many have not been collected."""

    def names(self) -> list[str]:
        """Their names, by which trials say who runs them."""

    def fill(self) -> None:
        """Start again those that died."""

    def wait(self, timeout: float) -> None:
        """Wait until one has ended, or for ``timeout`` seconds."""

    def collect_dead(self) -> dict[str, Reason]:
        """Forget the workers that have ended; the names of those that did not end well, and why."""

    def stop(self) -> None:
        """Ask all to put their trials back at the end of the epoch and leave."""

    def kill(self) -> None:
        """End all at once."""


class Session:
    """One command's share in the work on a study."""

    def __init__(
        self,
        study: Study,
        order: WorkerOrder,
        screen: Screen,
        interrupts: Interrupts,
        timeout: float | None = None,
        joined: bool = False,
        start: Callable[[WorkerOrder], Crew] = Workers,
    ) -> None:
        """Get ready; ``timeout`` is in seconds from now. A session stops when a person asks for it
        (``Study.request_stop``); one that has ``joined`` a study also when one that has not is stopped, on
        whatever machine. ``start`` starts the workers: local ones by default."""
        self._study = study
        self._joined = joined
        self._start = start
        self._stops = study.stops()
        self._screen = screen
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._interrupts = interrupts
        self._stopping = ""  # why
        self._put_back = True
        self._order = order
        self._deaths_in_a_row = 0
        self._closed = study.slots().closed()

    def run(self) -> int:
        """Watch; return the exit code."""
        self._meter = ProgressMeter(self._study)
        with self._interrupts.held():
            self._workers = self._start(self._order)
            try:
                with self._interrupts.ended_by_the_second(self._abandon):
                    code = self._watch()
            except GoneError:
                self._workers.kill()  # what they train is nobody's any more
                raise
        self._clear_up()
        return code

    def _abandon(self) -> None:
        """End the command beside its main thread, which waits for something that does not come."""
        ending = threading.Thread(target=self._end_at_once, daemon=True)
        ending.start()
        ending.join(AT_ONCE)
        leave_at_once()

    def _end_at_once(self) -> None:
        self._workers.kill()
        self._screen.close()
        self._screen.say(
            "interrupted, without an answer of the database. The same command continues the study"
        )

    def _clear_up(self) -> None:
        """Let those that joined know, unless they were told as well, and delete what dead workers left of
        closed slots."""
        if self._stopping not in ("", TOLD) and not self._joined:
            self._study.add_stop()
        sweep(self._study, self._order.storage_url)

    def say_if_incomplete(self, code: int) -> None:
        """Say what stopped the command, if its study is not complete."""
        if code == EXIT_CODE or (self._stopping and not self._study.is_complete()):
            why = INTERRUPTED if code == EXIT_CODE else self._stopping
            put_back = "; running trials were put back" if self._put_back else ""
            self._screen.say(f"{why}{put_back}. The same command continues the study")

    def _watch(self) -> int:
        while len(self._workers):
            self._workers.wait(POLL)
            if self._interrupts.count > 1:
                self._kill()
                return EXIT_CODE
            if not self._stopping and (why := self._why_stop()):
                self._stopping = why
                self._put_back = bool(self._meter.read().running)
                self._workers.stop()
            if not self._replace_ended():
                self._kill()
                return 1
            self._screen.update(self._within_time(self._meter.read()), bool(self._stopping))
        if self._study.is_complete():
            return 0
        return EXIT_CODE if self._interrupts.count else 0 if self._stopping else REFUSED

    def _within_time(self, progress: Progress) -> Progress:
        """The progress with the time left limited by --timeout."""
        if self._deadline is None:
            return progress
        left = max(self._deadline - time.monotonic(), 0.0)
        return replace(progress, seconds_left=min(left, progress.seconds_left or left))

    def _why_stop(self) -> str:
        """Why the workers are to leave now; empty: they are not."""
        if self._interrupts.count:
            return INTERRUPTED
        if self._out_of_time():
            return "time is up"
        return TOLD if self._is_told() else ""

    def _is_told(self) -> bool:
        before, now = self._stops, self._study.stops()
        return now.requested != before.requested or (self._joined and now.of_leaders != before.of_leaders)

    def _out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _kill(self) -> None:
        names = self._workers.names()
        self._workers.kill()
        self._study.fail_lost(dict.fromkeys(names, "interrupted"))

    def _replace_ended(self) -> bool:
        """Put the trials of dead workers back, and start others while there is work; false if they do nothing
        but die."""
        dead = self._collect_dead()
        if dead and not self._bury(dead):
            return False
        missing = len(self._workers) < self._order.placement.workers
        if missing and not self._stopping and not self._study.is_complete():
            self._workers.fill()
        return True

    def _collect_dead(self) -> dict[str, Reason]:
        """As the crew's, where those that die together were ended from outside."""
        dead = self._workers.collect_dead()
        if dead and len(self._workers):
            time.sleep(TOGETHER)
            dead |= self._workers.collect_dead()
        return dict.fromkeys(dead, "interrupted") if len(dead) > 1 else dead

    def _bury(self, dead: Mapping[str, Reason]) -> bool:
        self._study.fail_lost(dead)
        closed = self._study.slots().closed()
        self._deaths_in_a_row = len(dead) + (self._deaths_in_a_row if closed == self._closed else 0)
        self._closed = closed
        self._screen.say(f"{len(dead)} worker(s) died; their trials are put back")
        hopeless = self._deaths_in_a_row >= HOPELESS * self._order.placement.workers
        if hopeless:
            self._screen.say("workers keep dying without finishing a trial; giving up")
        return not hopeless


def sweep(study: Study, storage_url: str) -> None:
    """Delete the checkpoints of closed slots, which workers that were killed left."""
    from search.checkpoints import Checkpoints

    slots = study.slots()
    closed = {slot for slot in slots.attempts if slots.is_closed(slot)}
    Checkpoints(checkpoint_folder(storage_url, study)).sweep(closed)
