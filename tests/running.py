"""``cifar-search`` as a process of its own, to be watched and killed, and what its study holds then."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import warm
from optuna.trial import FrozenTrial, TrialState

from studies.record import WORKER
from studies.slots import Slots
from studies.storage import open_storage
from studies.study import SearchStudy

PATIENCE = 120
"""Seconds to wait for anything at all on a busy machine."""
TINY = """
question: Which learning rate?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0, normalization: none}
  training: {epochs: 500, batch_size: 64}
parameters:
  optimizer.lr: {float: [1e-3, 0.3], log: true, role: nuisance}
  model.dropout: {float: [0.0, 0.5], step: 0.1, role: scientific}
"""
TROUBLE = """
question: Which learning rate?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0, normalization: none}
  training: {epochs: 3, batch_size: 32}
first:
  - {optimizer.lr: 1e+12, training.batch_size: 32}
  - {training.batch_size: 1024}
  - {optimizer.lr: 0.05, training.batch_size: 32}
parameters:
  optimizer.lr: {float: [1e-3, 1e+12], log: true, role: nuisance}
  training.batch_size: {choice: [32, 1024], role: scientific}
"""


class Command:
    """A running ``cifar-search``, the first process of a session of its own. As in a shell, Ctrl-C reaches
    all processes of it."""

    def __init__(self, folder: Path, *words: str, terminal: bool = False, cold: bool = False) -> None:
        """Start it; ``cold`` by an interpreter of its own."""
        self._log = folder / f"{time.monotonic_ns()}.log"
        self._terminal: int | None = None
        output = self._open_terminal() if terminal else os.open(self._log, os.O_CREAT | os.O_WRONLY)
        streams = {"cwd": folder, "stdin": output, "stdout": output, "stderr": output}
        self.process = _cold(words, **streams) if cold else warm.Process(words, terminal=terminal, **streams)
        os.close(output)

    def _open_terminal(self) -> int:
        self._terminal, end = pty.openpty()
        threading.Thread(target=self._keep, args=(self._terminal,), daemon=True).start()
        return end

    def _keep(self, terminal: int) -> None:
        with self._log.open("wb", buffering=0) as log, contextlib.suppress(OSError):
            while text := os.read(terminal, 65536):
                log.write(text)

    def type(self, keys: bytes) -> None:
        assert self._terminal is not None
        os.write(self._terminal, keys)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(PATIENCE)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        os.killpg(self.process.pid, number)

    def others(self) -> list[int]:
        """The living processes of the session, without the first one."""
        return [pid for pid in _processes_of(self.process.pid) if pid != self.process.pid]

    def leaves_nothing_behind(self) -> bool:
        return soon(lambda: not self.others())


def _cold(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", warm.PROGRAM, *words]
    return subprocess.Popen(program, start_new_session=True, preexec_fn=as_in_a_shell, **streams)


def as_in_a_shell() -> None:
    """Let Ctrl-C, and a terminal that is closed, end the process, though they may not end the tests (nohup,
    or a job in the background)."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _processes_of(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    yield int(entry.name)


def soon(happened: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture(scope="module", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for decoded images that a module's tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_SEARCH_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start ``cifar-search``; whatever still runs at the end of the test is killed."""
    commands: list[Command] = []

    def start(*words: str, **how: bool) -> Command:
        commands.append(Command(tmp_path, *words, **how))
        return commands[-1]

    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "trouble.yaml").write_text(TROUBLE)
    yield start
    for command in commands:
        for pid in _processes_of(command.process.pid):
            os.kill(pid, signal.SIGKILL)
        command.process.wait()


def run_words(url: str, trials: int | None, workers: int, *more: str, space: str = "tiny") -> list[str]:
    words = ["run", "--study", "s", "--storage", url, "--space", f"./{space}.yaml", "--pruner", "none"]
    total = [] if trials is None else ["--trials", str(trials)]
    return [*words, "--dataset", "digits", "--train-size", "200", *total, "--workers", str(workers), *more]


def trials_of(url: str) -> list[FrozenTrial]:
    """The attempts of the study; none while there is no study."""
    with contextlib.suppress(ValueError), closing(open_storage(url, create=False)) as storage:
        return SearchStudy(storage, "s").trials()
    return []


def training(url: str) -> list[FrozenTrial]:
    """The attempts that have trained an epoch and still run."""
    return [t for t in trials_of(url) if t.state == TrialState.RUNNING and t.intermediate_values]


def closed_exactly(url: str, total: int) -> bool:
    """Whether the study has closed its slots, each once, and nothing is left that runs or waits."""
    trials = trials_of(url)
    slots = Slots(trials)
    closing = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert all(trial.state.is_finished() for trial in trials)
    assert sorted(slots.attempts) == list(range(total))
    assert len(closing) + sum(map(slots.failed_for_good, range(total))) == total
    return slots.closed() == total


def pid_of(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[WORKER].split(":")[2])
