"""The two ways in which a search shows itself: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.output import make_console
from studies import progress as study_progress
from studies.text import duration, percent, settings, sparkline

WORTH_A_LINE = 5000
"""Images whose decoding takes a second or more."""


class _Base:
    """What both screens have in common: lines, and what was found at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self.console.print(Text(line))

    def close(self) -> None:
        """Give the terminal back."""

    def finish(self, view: RenderableType, commands: list[str]) -> None:
        """Show what was found, and what to type next."""
        self.console.print(view)
        self.console.print(Text("next:"))
        for command in commands:
            self.console.print(Text(f"  {command}"), soft_wrap=True)


class PlainScreen(_Base):
    """One line for every closed trial, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown: set[int] = set()
        self._estimated = False

    def say(self, line: str) -> None:
        """Show a line that stays, however long it is."""
        self.console.print(Text(line), soft_wrap=True)

    def decoding(self, done: int, total: int) -> None:
        """Say that images were read, on the error stream, if there were enough for it to have taken time."""
        if done == total >= WORTH_A_LINE:
            print(f"decoded {total} images into the cache", file=sys.stderr, flush=True)  # noqa: T201

    def update(self, progress: study_progress.Progress, stopping: bool) -> None:  # noqa: ARG002
        """Show trials that closed since the last call, and the first estimate of the time."""
        self._shown |= progress.earlier
        for end in progress.ended:
            if end.slot not in self._shown:
                self._shown.add(end.slot)
                self.say(ended_line(end, len(self._shown), progress))
        if not self._estimated and progress.seconds_left is not None:
            self._estimated = True
            self.say(f"about {duration(progress.seconds_left)} to go, by the first epochs")


def ended_line(end: study_progress.Ended, count: int, progress: study_progress.Progress) -> str:
    """One closed trial as a line."""
    left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
    message = f": {end.message.strip().splitlines()[-1]}" if end.message.strip() else ""
    return (
        f"[{count}/{progress.total or '?'}{left}] trial {end.number} {end.reason} at epoch {end.epochs}, "
        f"{percent(end.accuracy)}, {duration(end.seconds)}: {settings(end.parameters)}{message}"
    )


class LiveScreen(_Base):
    """A live view: overall progress, the running trials, the best so far."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live: Live | None = None
        self._decoding: Progress | None = None

    def decoding(self, done: int, total: int) -> None:
        """A bar while images are read."""
        if self._decoding is None:
            self._decoding = Progress(
                TextColumn("decoding images"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._decoding.add_task("", total=total)
            self._decoding.start()
        self._decoding.update(self._decoding.task_ids[0], completed=done)
        if done == total:
            self._decoding.stop()
            self._decoding = None

    def update(self, progress: study_progress.Progress, stopping: bool) -> None:
        """Draw the study as it is now."""
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(live_view(progress, stopping, time.strftime("%H:%M:%S")), refresh=True)

    def finish(self, view: RenderableType, commands: list[str]) -> None:
        """End the live view, and show what was found."""
        self.close()
        super().finish(view, commands)

    def close(self) -> None:
        """Give the terminal back."""
        for part in (self._live, self._decoding):
            if part is not None:
                part.stop()
        self._live = self._decoding = None


def live_view(progress: study_progress.Progress, stopping: bool, clock: str) -> RenderableType:
    """Everything that is known of a running search."""
    head = Text("stopping at the end of the epoch (Ctrl-C again: at once)" if stopping else clock)
    return Group(head, _overall(progress), _running(progress), _counts(progress))


def _overall(progress: study_progress.Progress) -> RenderableType:
    done = len(progress.ended)
    left = "" if progress.seconds_left is None else f"about {duration(progress.seconds_left)} left"
    row = Table.grid(padding=(0, 1))
    row.add_row(
        "trials",
        ProgressBar(progress.total or done + 1, done, width=40),
        f"{done}/{progress.total or '?'}",
        left,
    )
    return row


def _running(progress: study_progress.Progress) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for run in progress.running:
        epochs, last = len(run.accuracies), run.accuracies[-1] if run.accuracies else None
        table.add_row(
            f"#{run.number}",
            Text(run.worker, style="dim"),
            ProgressBar(progress.epochs, epochs, width=12),
            f"{epochs}/{progress.epochs}",
            sparkline(run.accuracies),
            percent(last),
            Text(settings(run.parameters), overflow="ellipsis", no_wrap=True, style="dim"),
        )
    return table


def _counts(progress: study_progress.Progress) -> RenderableType:
    reasons = [end.reason for end in progress.ended]
    counts = (
        ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons)) or "none ended"
    )
    best = progress.best
    line = (
        f"; best {percent(best.accuracy)} (trial {best.number}: {settings(best.parameters)})" if best else ""
    )
    return Text(counts + line)


def make_screen() -> LiveScreen | PlainScreen:
    """A live screen if someone sits at a terminal, else plain lines."""
    console = make_console()
    kind = LiveScreen if console.is_terminal else PlainScreen
    return kind(console)
