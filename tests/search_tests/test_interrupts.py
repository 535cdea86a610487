"""Interruptions: raised, counted while they are held, and not lost where a library swallows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import as_in_a_shell

from search.interrupts import EXIT_CODE, Interrupts

LEAVE = """
import os, signal
from search.interrupts import Interrupts
Interrupts()
try:
    os.kill(os.getpid(), signal.{number})
except KeyboardInterrupt:
    pass
print("still here")
"""

STUCK = """
import os, signal, sqlite3, sys, threading, time
from search import interrupts
interrupts.AT_ONCE = 0.1
held = interrupts.Interrupts()
first, second = (sqlite3.connect(sys.argv[1], timeout=600, isolation_level=None) for _ in range(2))
first.execute("BEGIN IMMEDIATE")
send = lambda: [(os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)) for _ in range(int(sys.argv[2]))]
threading.Timer(0.3, send).start()
threading.Timer(2, lambda: os._exit(9)).start()
with held.held(), held.ended_by_the_second(lambda: os._exit(7)):
    second.execute("BEGIN IMMEDIATE")  # in C, where no handler of Python's runs
"""


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts = Interrupts()
    interrupts.raise_from_now_on()
    yield interrupts
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_at_first_the_process_ends_in_one_line_whoever_would_swallow_an_exception(number: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LEAVE.format(number=number)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (EXIT_CODE, "", "cifar-search: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_later_it_is_raised_and_one_that_was_swallowed_is_not_forgotten(
    interrupts: Interrupts, number: signal.Signals
) -> None:
    interrupts.check()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    with pytest.raises(KeyboardInterrupt), interrupts.held():
        pytest.fail("what came before must end the search here")


def test_while_held_they_are_only_counted(interrupts: Interrupts) -> None:
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.count == 2
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("interruptions", "code"), [(1, 9), (2, 7), (3, 7)])
def test_the_second_ends_a_process_whose_main_thread_waits_in_a_library(
    interruptions: int, code: int, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", STUCK, str(tmp_path / "locked.db"), str(interruptions)]
    stuck = subprocess.run(words, capture_output=True, text=True, preexec_fn=as_in_a_shell)
    assert (stuck.returncode, stuck.stdout, stuck.stderr) == (code, "", "")


def test_a_block_that_ends_by_itself_is_not_ended(
    interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.interrupts.AT_ONCE", 0.05)
    ended: list[bool] = []
    with interrupts.held():
        for _ in range(2):
            with interrupts.ended_by_the_second(lambda: ended.append(True)):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            assert signal.set_wakeup_fd(-1) == -1
    assert not ended
