"""A command that has ended leaves no process behind, not even for a moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from made_studies import FREE, make_study
from running import Command, data_folder, pid_of, run_words, soon, start, training

from studies.storage import open_storage, study_lock

__all__ = ["data_folder", "start"]
Start = Callable[..., Command]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database with a study."""
    url = f"sqlite:///{tmp_path}/studies.db"
    with closing(open_storage(url, create=True)) as storage:
        make_study(storage, FREE, 1, "other")
    return url


def test_a_refusal_leaves_no_process_that_still_starts(start: Start, url: str) -> None:
    command = start("worker", "none", "--storage", url, cold=True)
    assert command.ended() == 2, command.output
    assert command.others() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_it_starts_leaves_none(start: Start, url: str, number: signal.Signals) -> None:
    command = start(*run_words(url, 5, 1), cold=True)
    assert soon(command.others), command.output
    command.interrupt(number)
    assert command.ended() == 130, command.output
    assert command.others() == []


@pytest.mark.slow
def test_a_search_leaves_none_when_it_is_done_or_interrupted(start: Start, url: str) -> None:
    done = start(*run_words(url, 2, 2, "--epochs", "1"))
    assert done.ended() == 0, done.output
    assert done.others() == []
    stopped = start(*run_words(url, 5, 2, "--epochs", "1"))
    assert soon(lambda: len(stopped.others()) > 2), stopped.output
    stopped.interrupt()
    assert stopped.ended() in (0, 130), stopped.output
    assert stopped.others() == []


@pytest.mark.slow
def test_one_that_is_ended_beside_its_main_thread_leaves_none(start: Start, url: str) -> None:
    command = start(*run_words(url, 5, 2, "--epochs", "2000"), cold=True)
    assert soon(lambda: len(training(url)) == 2), command.output
    servers = [pid for pid in command.others() if pid not in {pid_of(trial) for trial in training(url)}]
    assert len(servers) >= 2  # the fork server and the resource tracker
    with (
        closing(open_storage(url, create=False, write=True)) as storage,
        study_lock(storage, storage.get_study_id_from_name("s")),
    ):
        os.kill(pid_of(training(url)[0]), signal.SIGKILL)
        time.sleep(1)  # until the command waits for the lock, to put the trial back
        command.interrupt()
        time.sleep(0.2)
        command.interrupt()
        assert command.ended() == 130
        assert command.others() == []
    assert "interrupted, without an answer of the database" in command.output
