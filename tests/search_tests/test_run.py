"""The command ``cifar-search run`` as a process of its own: totals, interruptions, kills, two at once."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Container
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState
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

from studies.record import OUTCOME, outcome_of, setup_of, slot_of
from studies.slots import ATTEMPTS, Slots

__all__ = ["data_folder", "start"]


def newly_training(url: str, earlier: Container[int]) -> dict[int, FrozenTrial]:
    """By their numbers, the attempts that run, save the earlier ones."""
    return {trial.number: trial for trial in training(url) if trial.number not in earlier}


def result(trials: list[FrozenTrial]) -> list[tuple[object, ...]]:
    """What a search found out, by slot: what does not depend on when it ran."""
    return [
        (slot_of(t), t.params, t.value, t.intermediate_values, setup_of(t).seed)
        for t in Slots(trials).closing_trials()
    ]


@pytest.mark.slow
def test_a_search_with_hopeless_configurations_goes_on_to_its_total_and_is_then_complete(
    start: Callable[..., Command], sqlite_url: str
) -> None:
    words = run_words(sqlite_url, 6, 2, space="trouble")
    command = start(*words)
    assert command.ended() == 0, command.output
    assert closed_exactly(sqlite_url, 6)
    assert command.leaves_nothing_behind()

    by_slot = {slot_of(trial): trial for trial in trials_of(sqlite_url)}
    assert len(by_slot) == len(trials_of(sqlite_url)) == 6
    assert (by_slot[0].state, outcome_of(by_slot[0]).reason) == (TrialState.PRUNED, "diverged")
    assert (by_slot[1].state, outcome_of(by_slot[1]).reason) == (TrialState.FAIL, "invalid")
    assert (by_slot[2].state, outcome_of(by_slot[2]).reason) == (TrialState.COMPLETE, "finished")
    lines = re.findall(r"^\[(\d)/6.*\] trial (\d) .*$", command.output, re.MULTILINE)
    assert [count for count, _ in lines] == list("123456")
    assert sorted(number for _, number in lines) == list("012345")
    assert "training.batch_size: must not exceed the 200 training images, but got 1024" in command.output
    assert "6 of 6 trials closed" in command.output
    assert "Traceback" not in command.output

    again = start(*words)
    studies = start("studies", "--json", "--storage", sqlite_url)
    assert studies.ended() == 0
    show = start("show", "s", "--json", "--storage", sqlite_url)
    assert show.ended() == again.ended() == 0
    assert "has closed 6 of 6 trials: nothing left to do" in again.output
    assert [(one["name"], one["closed"]) for one in json.loads(studies.output)] == [("s", 6)]
    told = json.loads(show.output)
    assert [trial["slot"] for trial in told["trials"]] == list(range(6))
    assert told["closed"] == 6
    assert len(trials_of(sqlite_url)) == 6
    assert again.leaves_nothing_behind()


@pytest.mark.slow
def test_a_search_that_ctrl_c_interrupted_goes_on_as_if_it_had_not(
    start: Callable[..., Command], sqlite_url: str, tmp_path: Path
) -> None:
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    whole = start(*run_words(undisturbed, 4, 1, "--seed", "3"))
    words = run_words(sqlite_url, 3, 1, "--seed", "3")
    first = start(*words, terminal=True)
    assert soon(lambda: len(trials_of(sqlite_url)) > 1 and training(sqlite_url)), first.output
    first.type(b"\x03")
    assert first.ended() == 130, first.output
    assert "The same command continues the study" in first.output
    assert "Traceback" not in first.output
    assert first.output.count("\x1b[?25l") == first.output.count("\x1b[?25h") > 0  # the cursor is back
    assert first.leaves_nothing_behind()
    attempts = trials_of(sqlite_url)
    assert outcome_of(attempts[-1]).reason == "interrupted"

    second = start(*words)
    assert second.ended() == 0, second.output
    assert closed_exactly(sqlite_url, 3)
    lines = re.findall(r"^\[\d/3.*\] trial (\d)", second.output, re.MULTILINE)
    closed_before = sum(trial.state.is_finished() for trial in attempts[:-1])
    assert len(lines) == 3 - closed_before
    retried = [trial for trial in trials_of(sqlite_url) if slot_of(trial) == slot_of(attempts[-1])]
    assert len(retried) == 2
    assert retried[0].params == retried[1].params
    assert setup_of(retried[0]) == setup_of(retried[1])

    more = start(*run_words(sqlite_url, 4, 1, "--seed", "3"))
    assert more.ended() == 0, more.output
    assert whole.ended() == 0, whole.output
    assert closed_exactly(sqlite_url, 4)
    assert result(trials_of(sqlite_url)) == result(trials_of(undisturbed))


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_a_killed_worker_is_replaced(
    start: Callable[..., Command], sqlite_url: str, tmp_path: Path
) -> None:
    words = run_words(sqlite_url, 4, 2)
    first = start(*words)
    assert soon(lambda: len(training(sqlite_url)) == 2), first.output
    first.interrupt()
    time.sleep(0.1)
    first.interrupt()
    assert first.ended() == 130, first.output
    assert "Traceback" not in first.output
    assert all(trial.state.is_finished() for trial in trials_of(sqlite_url))
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert first.leaves_nothing_behind()

    second = start(*words)
    assert soon(lambda: len(training(sqlite_url)) == 2), second.output
    os.kill(pid_of(training(sqlite_url)[0]), signal.SIGKILL)
    assert second.ended() == 0, second.output
    assert "1 worker(s) died; their trials are put back" in second.output
    assert closed_exactly(sqlite_url, 4)
    attempts = trials_of(sqlite_url)
    assert {"interrupted", "killed"} < {outcome_of(trial).reason for trial in attempts}
    setups = [(slot_of(trial), setup) for trial in attempts if (setup := setup_of(trial))]
    begun = {(slot, setup.seed, setup.fingerprint) for slot, setup in setups}
    assert len(begun) == 4 < len(attempts)
    assert second.leaves_nothing_behind()


@pytest.mark.slow
def test_when_all_processes_are_killed_again_and_again_two_commands_at_once_finish_the_study(
    start: Callable[..., Command], sqlite_url: str
) -> None:
    words = run_words(sqlite_url, 5, 2)
    killed: dict[int, FrozenTrial] = {}
    for _ in range(ATTEMPTS):  # it is no failure of what was trained
        command = start(*words)
        assert soon(lambda: len(newly_training(sqlite_url, killed)) == 2), command.output
        command.interrupt(signal.SIGKILL)
        command.ended()
        assert command.leaves_nothing_behind()
        killed.update(newly_training(sqlite_url, killed))
    assert len([trial for trial in killed.values() if slot_of(trial) == 0]) == ATTEMPTS

    two = [start(*words), start(*words)]
    assert [command.ended() for command in two] == [0, 0], [command.output for command in two]
    assert closed_exactly(sqlite_url, 5)
    after = {trial.number: outcome_of(trial) for trial in trials_of(sqlite_url)}
    assert {after[number].reason for number in killed} == {"interrupted"}
    assert all(command.leaves_nothing_behind() for command in two)


@pytest.mark.slow
def test_without_its_command_workers_leave_and_sigterm_and_a_timeout_end_well(
    start: Callable[..., Command], sqlite_url: str
) -> None:
    orphaned = start(*run_words(sqlite_url, 50, 2))
    assert soon(lambda: len(training(sqlite_url)) == 2), orphaned.output
    orphaned.interrupt(signal.SIGHUP)  # the terminal is closed
    assert orphaned.ended() == -signal.SIGHUP
    assert orphaned.leaves_nothing_behind()
    assert {trial.state for trial in trials_of(sqlite_url)} <= {TrialState.FAIL, TrialState.COMPLETE}

    preempted = start(*run_words(sqlite_url, 50, 2))
    assert soon(lambda: len(training(sqlite_url)) == 2), preempted.output
    preempted.interrupt(signal.SIGTERM)
    assert preempted.ended() == 130, preempted.output
    assert "The same command continues the study" in preempted.output
    assert preempted.leaves_nothing_behind()
    reasons = {outcome_of(trial).reason for trial in trials_of(sqlite_url)}
    assert "interrupted" in reasons
    assert reasons <= {"interrupted", "finished"}

    timed = start(*run_words(sqlite_url, None, 2, "--timeout", "3s"))
    assert timed.ended() == 0, timed.output
    assert "of unlimited trials closed" in timed.output
    assert "time is up" in timed.output
    trials = trials_of(sqlite_url)
    assert all(trial.state.is_finished() for trial in trials)
    assert len(trials) > len(reasons)
    assert timed.leaves_nothing_behind()


@pytest.mark.slow
def test_ctrl_c_before_anything_runs_is_one_line(
    start: Callable[..., Command], sqlite_url: str, tmp_path: Path
) -> None:
    command = start(*run_words(sqlite_url, 4, 2), cold=True)
    assert soon(lambda: len(command.others()) == 2)  # multiprocessing's two helpers have started
    command.interrupt()
    assert command.ended() == 130
    assert command.leaves_nothing_behind()
    assert command.output == "cifar-search: interrupted\n"
    assert not (tmp_path / "studies.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["postgres", "mysql"])
def test_a_search_on_a_server_survives_being_killed_and_closes_exactly_its_total(
    start: Callable[..., Command], server: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{server}_url")
    words = run_words(url, 4, 2)
    first = start(*words)
    assert soon(lambda: len(training(url)) == 2), first.output
    os.kill(pid_of(training(url)[0]), signal.SIGKILL)
    assert soon(lambda: "1 worker(s) died" in first.output)
    assert soon(lambda: len(training(url)) == 2)
    first.interrupt(signal.SIGKILL)
    first.ended()
    second = start(*words)
    assert second.ended() == 0, second.output
    assert closed_exactly(url, 4)
    reasons = [trial.user_attrs[OUTCOME]["reason"] for trial in trials_of(url)]
    assert (reasons.count("killed"), reasons.count("interrupted")) == (1, 2)
    assert second.leaves_nothing_behind()
