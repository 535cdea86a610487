"""Interruptions: raised, counted while they are held, and not lost where a library swallows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

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
