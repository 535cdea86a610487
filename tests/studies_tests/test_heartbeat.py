"""Signs of life: kept by the database's clock, and given on in spite of its errors."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
from optuna.trial import TrialState

from studies.heartbeat import GRACE, INTERVAL, Heartbeat, silent_trials
from studies.storage import open_storage


@pytest.fixture
def storage(database_url: str) -> Iterator[RDBStorage]:
    with closing(open_storage(database_url, create=True)) as storage:
        yield storage


@pytest.fixture
def study(storage: RDBStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s")


def running(study: optuna.Study) -> int:
    """The id of a new trial that has given its first sign of life."""
    trial_id = study.ask()._trial_id
    study._storage.record_heartbeat(trial_id)
    return trial_id


def last_heartbeat(storage: RDBStorage, trial_id: int) -> object:
    query = sa.select(TrialHeartbeatModel.heartbeat).where(TrialHeartbeatModel.trial_id == trial_id)
    with storage.engine.connect() as connection:
        return connection.execute(query).scalar_one_or_none()


def set_back(storage: RDBStorage, trial_id: int, seconds: float) -> None:
    """Let the trial's last sign of life be so much older."""
    earlier = last_heartbeat(storage, trial_id) - timedelta(seconds=seconds)
    change = sa.update(TrialHeartbeatModel).where(TrialHeartbeatModel.trial_id == trial_id)
    with storage.engine.begin() as connection:
        connection.execute(change.values(heartbeat=earlier))


def soon(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


def test_running_trials_are_silent_after_the_grace_period(storage: RDBStorage, study: optuna.Study) -> None:
    fresh, silent, ended = running(study), running(study), running(study)
    other = running(optuna.create_study(storage=storage, study_name="other"))
    for trial_id in (silent, ended, other):
        set_back(storage, trial_id, GRACE + 5)
    set_back(storage, fresh, GRACE - 15)
    study.tell(2, state=TrialState.FAIL)
    assert silent_trials(storage, study._study_id) == [silent]
    assert silent_trials(storage, study._study_id, grace=GRACE - 20) == [fresh, silent]
    storage.record_heartbeat(silent)
    assert silent_trials(storage, study._study_id) == []


def test_a_trial_without_a_sign_of_life_is_given_its_first(storage: RDBStorage, study: optuna.Study) -> None:
    trial_id = study.ask()._trial_id
    assert last_heartbeat(storage, trial_id) is None
    assert silent_trials(storage, study._study_id) == []
    assert last_heartbeat(storage, trial_id) is not None
    set_back(storage, trial_id, GRACE + 5)
    assert silent_trials(storage, study._study_id) == [trial_id]


def test_when_the_clock_is_set_back_the_living_stay_and_the_dead_are_missed_a_grace_period_later(
    storage: RDBStorage, study: optuna.Study
) -> None:
    living, dead = running(study), running(study)
    for trial_id in (living, dead):
        set_back(storage, trial_id, -3600)  # as if it was given before the clock was set back by an hour
    assert silent_trials(storage, study._study_id, grace=5) == []
    set_back(storage, dead, 10)
    set_back(storage, living, 10)
    storage.record_heartbeat(living)
    assert silent_trials(storage, study._study_id, grace=5) == [dead]


def test_the_clock_of_this_machine_has_no_say(
    storage: RDBStorage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")  # 14 hours ahead
    time.tzset()
    try:
        trial_id = running(study)
        assert silent_trials(storage, study._study_id, grace=5) == []
        set_back(storage, trial_id, 10)
        assert silent_trials(storage, study._study_id, grace=5) == [trial_id]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_thread_gives_signs_of_life_for_the_trials_it_watches_until_it_is_closed(
    storage: RDBStorage, study: optuna.Study
) -> None:
    first, second, third = running(study), running(study), running(study)
    for trial_id in (first, second, third):
        set_back(storage, trial_id, 100)
    before = {trial_id: last_heartbeat(storage, trial_id) for trial_id in (first, second, third)}

    def is_heard(trial_id: int) -> bool:
        return last_heartbeat(storage, trial_id) != before[trial_id]

    heartbeat = Heartbeat(storage, interval=0.02)
    try:
        heartbeat.watch(dict.fromkeys([first, second]))
        assert soon(lambda: is_heard(first) and is_heard(second))
        assert not is_heard(third)
        heartbeat.watch({third: None})
        assert soon(lambda: is_heard(third))
        heartbeat.watch({})
    finally:
        heartbeat.close()
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_the_thread_outlives_errors_of_the_database(storage: RDBStorage, study: optuna.Study) -> None:
    trial_id = running(study)
    set_back(storage, trial_id, 100)
    before = last_heartbeat(storage, trial_id)
    rename(storage, "trial_heartbeats", "away")
    heartbeat = Heartbeat(storage, interval=0.02)
    try:
        heartbeat.watch({trial_id: None})
        time.sleep(0.3)
        rename(storage, "away", "trial_heartbeats")
        assert soon(lambda: last_heartbeat(storage, trial_id) != before)
    finally:
        heartbeat.close()


def rename(storage: RDBStorage, table: str, other: str) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO {other}"))


def test_a_living_worker_misses_several_signs_before_it_counts_as_lost() -> None:
    assert GRACE >= 5 * INTERVAL


def test_optuna_still_has_the_internals_that_this_rests_on() -> None:
    assert list(inspect.signature(RDBStorage.record_heartbeat).parameters) == ["self", "trial_id"]
    assert {"trial_id", "study_id", "state"} <= set(TrialModel.__table__.columns.keys())
    assert {"trial_id", "heartbeat"} <= set(TrialHeartbeatModel.__table__.columns.keys())
    assert TrialHeartbeatModel.__table__.name == "trial_heartbeats"
