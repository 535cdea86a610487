"""Whole commands that are told to leave, joined by others, run side by side, or lose their database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from networks import Network
from private_servers import SERVERS, MissingError, private_server
from running import (
    Command,
    closed_exactly,
    data_folder,
    pid_of,
    run_words,
    soon,
    start,
    training,
    trials_of,
)

from studies.folders import checkpoint_folder
from studies.record import history_of, outcome_of
from studies.slots import Slots
from studies.storage import open_storage
from studies.study import SearchStudy

__all__ = ["data_folder", "start"]
Start = Callable[..., Command]
OUTAGE = 5.0
"""Seconds."""
LONG = 2000
"""Epochs of a trial that takes some seconds."""


HOLDER = """
import sys
from studies.storage import open_storage, study_lock
storage = open_storage(sys.argv[1], create=False, write=True)
study_id = storage.get_study_id_from_name("s")
with study_lock(storage, study_id):
    print("holds", flush=True)
    sys.stdin.read()
    storage.set_study_user_attr(study_id, "still", "held")  # refused once the lock is lost
"""


@pytest.mark.slow
def test_ctrl_c_twice_ends_a_command_that_waits_for_the_lock_of_a_frozen_process(
    start: Start, database_url: str
) -> None:
    command = start(*run_words(database_url, 50, 2, "--epochs", str(LONG)), terminal=True)
    assert soon(lambda: len(training(database_url)) == 2), command.output
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, database_url], **pipes) as holder:
        assert holder.stdout.readline() == b"holds\n"
        holder.send_signal(signal.SIGSTOP)
        os.kill(pid_of(training(database_url)[0]), signal.SIGKILL)
        time.sleep(1)  # until the command waits for the lock, to put the trial back
        command.type(b"\x03")
        time.sleep(0.2)
        command.type(b"\x03")
        assert command.ended() == 130
        assert command.leaves_nothing_behind()
        assert "interrupted, without an answer of the database" in command.output
        assert "Traceback" not in command.output
        assert command.output.count("\x1b[?25l") == command.output.count("\x1b[?25h") > 0
        holder.send_signal(signal.SIGCONT)
        holder.communicate()
        assert holder.returncode == 0  # it was waited for all the time


@pytest.mark.slow
def test_sigterm_to_a_worker_and_to_the_command_puts_the_trial_back_and_it_goes_on_where_it_was(
    start: Start, sqlite_url: str, tmp_path: Path
) -> None:
    words = run_words(sqlite_url, 1, 1, "--epochs", str(LONG))
    first = start(*words)
    assert soon(lambda: training(sqlite_url)), first.output
    os.kill(pid_of(training(sqlite_url)[0]), signal.SIGTERM)
    assert soon(lambda: len(trials_of(sqlite_url)) == 2 and training(sqlite_url)), first.output
    first.process.terminate()
    assert first.ended() == 130, first.output
    assert "died" not in first.output
    assert first.leaves_nothing_behind()
    assert len(list(tmp_path.glob("studies.db.checkpoints/*/0.checkpoint"))) == 1

    second = start(*words)
    assert second.ended() == 0, second.output
    assert closed_exactly(sqlite_url, 1)
    attempts = trials_of(sqlite_url)
    assert [outcome_of(trial).reason for trial in attempts] == ["interrupted", "interrupted", "finished"]
    seconds = [history_of(trial).seconds for trial in attempts]
    assert 0 < len(seconds[0]) < len(seconds[1]) < len(seconds[2]) == LONG
    assert seconds[2][: len(seconds[1])] == seconds[1]  # no epoch was trained twice
    assert seconds[1][: len(seconds[0])] == seconds[0]
    assert not list(tmp_path.rglob("*.checkpoint"))


@pytest.mark.slow
def test_a_worker_joins_and_leaves_when_the_command_that_leads_is_stopped_or_at_the_total(
    start: Start, sqlite_url: str
) -> None:
    led = run_words(sqlite_url, 50, 1, "--epochs", str(LONG))
    joined = ["worker", "s", "--storage", sqlite_url, "--workers", "1"]
    leader = start(*led)
    assert soon(lambda: training(sqlite_url)), leader.output
    joiner = start(*joined)
    assert soon(lambda: len(training(sqlite_url)) == 2), joiner.output
    leader.interrupt()
    assert (leader.ended(), joiner.ended()) == (130, 0), joiner.output
    assert "told to stop; running trials were put back" in joiner.output
    assert leader.leaves_nothing_behind()
    assert joiner.leaves_nothing_behind()
    assert all(trial.state.is_finished() for trial in trials_of(sqlite_url))

    again = start(*joined)
    assert soon(lambda: training(sqlite_url)), again.output
    with closing(open_storage(sqlite_url, create=False, write=True)) as storage:
        total = Slots(trials_of(sqlite_url)).closed() + 2
        study = SearchStudy(storage, "s")
        study.set_total(total)
        folder = checkpoint_folder(sqlite_url, study)
    assert again.ended() == 0, again.output
    assert closed_exactly(sqlite_url, total)
    assert again.leaves_nothing_behind()

    left = folder / ".0.checkpoint.1a"  # of a worker that was killed while it wrote
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    late = start(*joined)
    assert late.ended() == 0, late.output
    assert "nothing left to do" in late.output
    assert not left.exists()


@pytest.mark.slow
def test_those_that_joined_leave_when_the_time_of_the_command_that_leads_is_up(
    start: Start, sqlite_url: str
) -> None:
    leader = start(*run_words(sqlite_url, None, 1, "--timeout", "25s", "--epochs", str(LONG)))
    assert soon(lambda: training(sqlite_url)), leader.output
    joiner = start("worker", "s", "--storage", sqlite_url, "--workers", "1")
    assert (leader.ended(), joiner.ended()) == (0, 0), joiner.output
    assert "time is up; running trials were put back" in leader.output
    assert "told to stop; running trials were put back" in joiner.output
    assert all(trial.state.is_finished() for trial in trials_of(sqlite_url))


@pytest.mark.slow
def test_two_commands_that_begin_at_once_on_an_empty_database_close_the_total_together(
    start: Start, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_SHARED", str(tmp_path))
    two = [start(*run_words(postgres_url, 5, 2)) for _ in range(2)]
    assert [command.ended() for command in two] == [0, 0], [command.output for command in two]
    assert closed_exactly(postgres_url, 5)
    assert len(trials_of(postgres_url)) == 5
    assert all(command.leaves_nothing_behind() for command in two)


@pytest.mark.slow
def test_an_outage_of_the_database_costs_no_trial(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_SHARED", str(tmp_path))
    try:
        with private_server("postgresql") as server:
            command = start(*run_words(server.url, 6, 2))
            assert soon(lambda: len(training(server.url)) == 2), command.output
            server.crash()
            time.sleep(OUTAGE)
            assert command.process.poll() is None, command.output
            server.start()
            assert command.ended() == 0, command.output
            assert closed_exactly(server.url, 6)
            assert [outcome_of(trial).reason for trial in trials_of(server.url)] == ["finished"] * 6
            assert "died" not in command.output
            assert command.leaves_nothing_behind()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("backend", SERVERS)
def test_a_network_that_swallows_packets_costs_no_trial(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cable: Network, backend: str
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_SHARED", str(tmp_path))
    try:
        with private_server(backend, network=cable) as server:
            command = start(*run_words(server.url, 4, 2))
            assert soon(lambda: len(training(server.url)) == 2), command.output
            cable.sever()
            time.sleep(45)
            assert command.process.poll() is None, command.output
            cable.restore()
            assert command.ended() == 0, command.output
            assert closed_exactly(server.url, 4)
            assert [outcome_of(trial).reason for trial in trials_of(server.url)] == ["finished"] * 4
            assert "died" not in command.output
            assert "Traceback" not in command.output
            assert command.leaves_nothing_behind()
    except MissingError as error:
        pytest.skip(str(error))
