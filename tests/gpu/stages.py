"""Commands one after the other or beside each other, each with a time limit and a file of its output.

Only Linux tells which processes are below a command; elsewhere those in sessions of their own are not found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from command import ROOT

LAST = 25
"""Last lines of a stage's output that are printed."""
LONGEST_LINE = 330
PATIENCE = 5.0
"""Seconds that a stage which is told to end has for it, and then those in which what was killed may go."""
EVERY = 0.1
"""Seconds between two looks at whether a stage has ended, or all are to end."""
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MARK = "CIFAR_SEARCH_STAGE"
"""A variable of the environment that all processes of a stage have, in whichever session they are."""

Lines = Sequence[str]


def whole(lines: Lines) -> Lines:
    return lines


def last_lines(lines: Lines) -> Lines:
    return lines[-LAST:]


@dataclass(frozen=True)
class Stage:
    """A command, and how long it may take."""

    name: str
    """Also of the file of its output."""
    command: list[str]
    limit: float
    """Seconds."""
    folder: Path = ROOT
    """Where it runs."""
    shown: Callable[[Lines], Lines] = last_lines
    """What of its output is printed once it has ended."""


@dataclass(frozen=True)
class Started:
    """A stage that is running."""

    stage: Stage
    process: subprocess.Popen[bytes]
    mark: str
    begin: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of its limit."""
        return self.begin + self.stage.limit - time.monotonic()

    def tell(self) -> None:
        """Its first process knows in which order the others are to end."""
        self.process.terminate()

    def kill(self, patience: float) -> int:
        """End what there is of it after so many seconds; return its exit code, negative if it was killed."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        last = time.monotonic() + PATIENCE
        while self._kill_all() and time.monotonic() < last:
            time.sleep(EVERY)
        return self.process.wait()

    def _kill_all(self) -> int:
        """How many it were: one that is killed takes a moment, and may have started another just before."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.poll()  # else it stays, as a zombie
        found = list(marked(self.mark))
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(found)


def marked(mark: str) -> Iterator[int]:
    """Processes whose environment has the mark; those of others, whose environment is hidden, have not."""
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


class Stages:
    """All that a script does within its time. In a ``with``, which ends what is running at its end: by then,
    something has failed, or the script was told to end, by Ctrl-C or otherwise."""

    def __init__(self, out: Path, seconds: float) -> None:
        """``out``: the folder of the outputs; ``seconds``: for all together."""
        self._out = out
        self._deadline = time.monotonic() + seconds
        self._running: list[Started] = []
        self._told: int | None = None
        """The signal by which the script was told to end."""
        self.codes: dict[str, int] = {}
        """Exit codes of the stages that have ended, negative if killed."""

    def __enter__(self) -> Stages:
        # What is ignored stays so: nohup starts a program that is to outlive its terminal like that.
        heard = [each for each in ENDINGS if signal.getsignal(each) != signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._hear) for each in heard}
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end(*self._running)
        for each, handler in self._before.items():
            signal.signal(each, handler)
        if self._told:
            with suppress(OSError):  # the terminal may be gone
                name = signal.Signals(self._told).name
                kept = "the logs, and every answer that was there"
                print(f"ended by {name}; {self._out} keeps what was found: {kept}", flush=True)
            raise SystemExit(128 + self._told)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """No more than note the first one: an exception here could lose a stage that is being started."""
        self._told = self._told or number

    @property
    def left(self) -> float:
        """Seconds; never less than one, in which a stage can say why it failed."""
        return max(1.0, self._deadline - time.monotonic())

    @property
    def failed(self) -> bool:
        return any(self.codes.values())

    def run(self, stage: Stage) -> int:
        """Do it and print how it ended; return its exit code, which is negative if it was killed."""
        return self.finish(self.start(stage))

    def start(self, stage: Stage) -> Started:
        """Let it run beside what comes next."""
        self._stop_if_told()
        limit = min(stage.limit, self.left)
        print(f"-> {stage.name}: at most {limit:.0f} s, {self.left:.0f} s left", flush=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        mark = uuid.uuid4().hex
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", MARK: mark}
        with self._log(stage).open("wb") as log:
            process = subprocess.Popen(
                stage.command,
                cwd=stage.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(Started(stage, process, mark))
        return self._running[-1]

    def finish(self, started: Started) -> int:
        """Wait for it, no longer than it may take, and end what it left behind."""
        stage = started.stage
        late = not self._ends_in_time(started)
        (code,) = self._end(started)
        self.codes[stage.name] = code
        seconds = time.monotonic() - started.begin
        print(f"== {stage.name}: {code}, {seconds:.0f} s{', over its limit' if late else ''}", flush=True)
        lines = self._log(stage).read_text(errors="replace").splitlines()
        for line in stage.shown(lines):
            print(line[:LONGEST_LINE], flush=True)
        return code

    def _ends_in_time(self, started: Started) -> bool:
        while started.process.poll() is None:
            self._stop_if_told()
            if min(started.left, self._deadline - time.monotonic()) <= 0:
                return False
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(EVERY)
        return True

    def _end(self, *running: Started) -> list[int]:
        """All are told to before the first one's end is waited for."""
        last = time.monotonic() + PATIENCE
        for each in running:
            each.tell()
        codes = [each.kill(max(0.0, last - time.monotonic())) for each in running]
        self._running = [each for each in self._running if each not in running]
        return codes

    def _stop_if_told(self) -> None:
        if self._told:
            raise SystemExit(128 + self._told)

    def _log(self, stage: Stage) -> Path:
        return self._out / f"{stage.name}.log"
