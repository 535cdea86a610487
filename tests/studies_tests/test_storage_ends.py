"""Every way in which a connection can end, at every message of what a worker asks of its database."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import faults
import optuna
import pytest
import sqlalchemy as sa
from faults import ENDS
from made_studies import FREE, claim, end, make_study
from optuna.storages._rdb.models import TrialModel
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from studies.base import Claim
from studies.connections import IDLE, patience
from studies.heartbeat import silent_trials
from studies.locks import FROZEN, LOCK_TIMEOUT, QUESTION, LockLostError
from studies.reports import record_heartbeats, report_many
from studies.retries import passes
from studies.storage import Storage, locked, open_storage, study_lock
from studies.study import SearchStudy

optuna.logging.set_verbosity(optuna.logging.WARNING)
DIRECTIONS = [StudyDirection.MAXIMIZE]
TOLD = ("refused", "reset", "reset after the answer", "half-closed", "half-closed after the answer")
"""Ends of which the client is told at once."""
UNTOLD = sorted(ENDS.keys() - set(TOLD))


@pytest.fixture(params=["postgres", "mysql"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[faults.Proxy]:
    """The way to a database on a server; each side is patient for a few seconds only."""
    for name, seconds in {"ANSWER": 2, "IDLE": 1}.items():
        monkeypatch.setattr(f"studies.connections.{name}", seconds)
    with faults.proxy(request.getfixturevalue(f"{request.param}_url")) as proxy:
        yield proxy


def report(study: SearchStudy, of: Claim) -> None:
    report_many(study.storage, [(of.trial_id, 1, 0.25), (of.trial_id, 2, 0.5)], study.uids([of.trial_id]))


def sign_of_life(study: SearchStudy, of: Claim) -> list[int]:
    record_heartbeats(study.storage, study.uids([of.trial_id]))
    return silent_trials(study.storage, study.study_id)


def count(study: SearchStudy, of: Claim) -> int:
    """Add one to a number, as slots are counted: what was read may not be written twice."""

    def section() -> int:
        of_trial = study.optuna.user_attrs.get("n", {})
        study.optuna.set_user_attr("n", {**of_trial, str(of.slot): of_trial.get(str(of.slot), 0) or 1})
        return len(study.optuna.user_attrs["n"])

    return locked(study.storage, study.study_id, section)


CALLS: dict[str, Callable[[SearchStudy, Claim], Any]] = {
    "claim": lambda study, _: claim(study).slot,
    "report": report,
    "sign of life": sign_of_life,
    "tell": lambda study, of: end(study, of, "finished"),
    "put back": lambda study, of: study.put_back(of.trial_id),
    "lock": count,
}


def picture(study: SearchStudy) -> Any:
    """What the database has of the study, less what differs each time."""
    trials = [
        (t.state, t.values, t.params, t.intermediate_values, t.user_attrs.keys(), t.user_attrs.get("slot"))
        for t in study.trials()
    ]
    return trials, study.optuna.user_attrs.get("n")


def begun(storage: Storage, name: str) -> tuple[SearchStudy, Claim]:
    """A study with an attempt that runs."""
    study = make_study(storage, FREE, 3, name)
    return study, claim(study)


def check(
    way: faults.Proxy, call: Callable[[SearchStudy, Claim], Any], ways: Sequence[str], step: int
) -> None:
    """Do it once undisturbed, and once more for every ``step``-th message that it sends, at which its
    connection ends in one of these ways, by turns."""
    with closing(open_storage(way.url, create=True, outage=30)) as storage:
        undisturbed, of = begun(storage, "undisturbed")
        answer = call(undisturbed, of)
        for number, how in zip(itertools.count(1, step), itertools.cycle(ways), strict=False):
            study, of = begun(storage, f"struck at {number}")
            way.strike(number, how)
            found = call(study, of)
            if way.spare():
                break
            assert found == answer, (number, how)
            assert picture(study) == picture(undisturbed), (number, how)
    assert number > 1, "nothing was sent"


def test_answers_are_waited_for_as_long_as_the_thread_is_patient(way: faults.Proxy) -> None:
    sleep = {"postgresql": "SELECT pg_sleep(1)", "mysql": "SELECT SLEEP(1)"}
    with closing(open_storage(way.url, create=True)) as storage, storage.engine.connect() as connection:
        connection.exec_driver_sql(sleep[storage.engine.dialect.name])
        with patience(0.3), pytest.raises(sa.exc.DBAPIError) as caught:
            connection.exec_driver_sql(sleep[storage.engine.dialect.name])
        assert caught.value.connection_invalidated
        assert passes(caught.value)


def test_nothing_is_sent_whose_answer_is_not_asked_for(way: faults.Proxy) -> None:
    """PostgreSQL ends no session that waits for the rest of such a batch, whatever it holds."""
    with closing(open_storage(way.url, create=True, outage=30)) as storage:
        study, of = begun(storage, "s")
        this = TrialModel.trial_id == of.trial_id
        row = sa.update(TrialModel).where(this).values(number=sa.bindparam("to"))
        batch = [{"to": 0}] * 3000  # more than one packet holds
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            way.strike(1, "swallowed after the answer", b"UPDATE")
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(row, batch)
        assert not way.spare()
        end(study, of, "finished")
        with storage.engine.begin() as connection:
            assert connection.execute(row, [{"to": 1}, {"to": 0}]).rowcount == 2


def test_claim_whose_first_sign_of_life_is_lost_is_a_claim(way: faults.Proxy) -> None:
    with closing(open_storage(way.url, create=True, outage=30)) as storage:
        study = make_study(storage, FREE, 3)
        way.strike(1, "reset", b"INSERT INTO trial_heartbeats")
        assert claim(study).slot == 0
        assert not way.spare()
        assert [trial.state for trial in study.trials()] == [TrialState.RUNNING]


COMMITS: dict[str, Callable[[Storage, int, int], Any]] = {
    "new trial": lambda storage, study_id, _: storage.create_new_trial(study_id) > 0,
    "start": lambda storage, _, trial_id: storage.set_trial_state_values(trial_id, TrialState.RUNNING),
    "fail": lambda storage, _, trial_id: storage.set_trial_state_values(trial_id, TrialState.FAIL),
    "study's attribute": lambda storage, study_id, _: storage.set_study_user_attr(study_id, "a", 1),
    "trial's attribute": lambda storage, _, trial_id: storage.set_trial_user_attr(trial_id, "a", 1),
    "study": lambda storage, study_id, _: storage.create_whole_study(DIRECTIONS, f"{study_id}", {}, {}) > 0,
}


def test_what_is_committed_when_its_client_has_come_back_is_done_once(way: faults.Proxy) -> None:
    with closing(open_storage(way.url, create=True, outage=30)) as storage:
        for name, call in COMMITS.items():
            studies = [storage.create_new_study(DIRECTIONS) for _ in range(2)]
            waiting = create_trial(state=TrialState.WAITING)
            trials = [storage.create_new_trial(study_id, waiting) for study_id in studies]
            answer = call(storage, studies[0], trials[0])
            way.strike(1, "reset, delivered late", b"COMMIT")
            assert call(storage, studies[1], trials[1]) == answer, name
            assert not way.spare()
            found = [
                [(trial.state, trial.user_attrs) for trial in storage.get_all_trials(study_id)]
                for study_id in studies
            ]
            assert found[0] == found[1], name
            assert storage.get_study_user_attrs(studies[0]) == storage.get_study_user_attrs(studies[1])


def test_lock_of_a_client_that_vanished_is_free_before_others_give_up(
    way: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IDLE < FROZEN < LOCK_TIMEOUT / 2 - QUESTION
    monkeypatch.setattr("studies.locks.FROZEN", 2)
    with (
        closing(open_storage(way.url, create=True, outage=30)) as storage,
        closing(open_storage(way.target, create=False, write=True)) as other,
    ):
        made = storage.create_new_study(DIRECTIONS)
        with study_lock(storage, made):
            way.swallow()
            with study_lock(other, made, timeout=20):
                pass
            with pytest.raises(LockLostError):
                storage.set_study_user_attr(made, "after", 1)


def test_client_that_vanished_while_it_waited_is_not_given_the_lock(
    way: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.locks.QUESTION", 0.5)
    monkeypatch.setattr("studies.connections.IDLE", 20)
    monkeypatch.setattr("studies.locks.FROZEN", 20)
    with (
        closing(open_storage(way.url, create=True, outage=30)) as storage,
        closing(open_storage(way.target, create=False, write=True)) as other,
        ThreadPoolExecutor() as threads,
    ):
        made = storage.create_new_study(DIRECTIONS)
        with study_lock(other, made):
            way.strike(1, "swallowed after the answer", b"_LOCK" if "mysql" in way.url else b"_lock")
            waiting = threads.submit(locked, storage, made, lambda: "in turn")
            time.sleep(1.5)
        with study_lock(other, made, timeout=5):
            pass
        assert waiting.result() == "in turn"


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_end_that_is_told_at_any_message_changes_nothing(way: faults.Proxy, call: str) -> None:
    check(way, CALLS[call], TOLD, 3 if call == "claim" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_end_that_nobody_is_told_of_changes_nothing(way: faults.Proxy, call: str) -> None:
    check(way, CALLS[call], UNTOLD, {"claim": 13, "tell": 9, "lock": 9}.get(call, 2))


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_network_that_stands_still_for_longer_than_both_ends_wait_changes_nothing(
    way: faults.Proxy, call: str
) -> None:
    """What stood in it comes when the client has given up, and the server too."""
    with closing(open_storage(way.url, create=True, outage=30)) as storage:
        undisturbed, of = begun(storage, "undisturbed")
        answer = CALLS[call](undisturbed, of)
        for number in (1, 2, 4):
            study, of = begun(storage, f"still at {number}")
            way.stall(number, 5)
            assert CALLS[call](study, of) == answer
            assert not way.spare()
            assert picture(study) == picture(undisturbed), number
