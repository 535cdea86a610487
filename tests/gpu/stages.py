"""Commands one after the other or beside each other, each with a time limit and a file of its output."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from setting import ROOT

SHOWN = 25
"""Last lines of a stage's output that are printed."""
LONGEST_LINE = 330


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


@dataclass(frozen=True)
class Started:
    """A stage that is running."""

    stage: Stage
    process: subprocess.Popen[bytes]
    begin: float


class Stages:
    """All that a script does within its time."""

    def __init__(self, out: Path, seconds: float) -> None:
        """``out``: the folder of the outputs; ``seconds``: for all together."""
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds; never less than one, in which a stage can say why it failed."""
        return max(1.0, self._deadline - time.monotonic())

    def run(self, stage: Stage) -> int:
        """Do it and print how it ended; return its exit code, which is negative if it was killed."""
        return self.finish(self.start(stage))

    def start(self, stage: Stage) -> Started:
        """Let it run beside what comes next."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        with self._log(stage).open("wb") as log:
            process = subprocess.Popen(
                stage.command,
                cwd=stage.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(stage, process, time.monotonic())

    def finish(self, started: Started) -> int:
        """Wait for it, no longer than it may take."""
        stage, process = started.stage, started.process
        used = time.monotonic() - started.begin
        with suppress(subprocess.TimeoutExpired):
            process.wait(min(max(0.0, stage.limit - used), self.left))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it, or what it left behind
        code = process.wait()
        print(f"== {stage.name}: {code}, {time.monotonic() - started.begin:.0f} s", flush=True)
        lines = self._log(stage).read_text(errors="replace").splitlines()
        print(*(line[:LONGEST_LINE] for line in lines[-SHOWN:]), sep="\n", flush=True)
        return code

    def _log(self, stage: Stage) -> Path:
        return self._out / f"{stage.name}.log"
